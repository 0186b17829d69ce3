from __future__ import annotations

import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.papers import gat_study as study
from marey.papers.cells import ReproduceOptions
from marey.recipes.gat import gat_youtube8m_mini
from marey.synthetic.youtube8m import render_youtube8m_mini


def test_the_mini_data_is_rendered_once(tmp_path, monkeypatch):
    calls = []

    def render(out, **options):
        calls.append(out)
        return render_youtube8m_mini(out, videos={"train": 2}, shards=1)

    monkeypatch.setattr(study, "render_youtube8m_mini", render)
    shared = study.Study(options=ReproduceOptions(cache=tmp_path), config=gat_youtube8m_mini())
    assert shared.data() == shared.data() == tmp_path / "youtube8m-mini"
    assert len(calls) == 1
