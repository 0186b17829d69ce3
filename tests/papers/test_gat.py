from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.errors import UserError
from marey.papers import gat as study
from marey.papers.cells import ReproduceOptions
from marey.papers.run import run_cells, select_cells
from marey.recipes.gat import VARIANTS, gat_youtube8m_mini
from marey.synthetic.youtube8m import render_youtube8m_mini


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_youtube8m_mini(
        tmp_path_factory.mktemp("mini") / "data",
        shards=2,
        videos={"train": 20, "validate": 6, "test": 10},
    )


def test_the_paper_has_a_number_for_every_column():
    assert list(VARIANTS) == list(study.PAPER)


def test_cells_cover_tables_and_figures():
    found = {cell.table for cell in study.cells(ReproduceOptions(seeds=1))}
    assert found == {"Table 1", "Table 2", "Fig. 3", "Fig. 5", "Fig. 6", "Figs. 1b, 6", "Fig. 8"}
    with pytest.raises(UserError, match="give the folder of its shards as --data"):
        study.check_data(ReproduceOptions(scale="full"))


def test_a_small_run_fills_the_table_and_the_figures(folder, tmp_path, monkeypatch):
    short = gat_youtube8m_mini()
    short = replace(short, train=replace(short.train, max_steps=2, eval_every=2))
    monkeypatch.setattr(study, "gat_youtube8m_mini", lambda: short)
    options = ReproduceOptions(seeds=1, data=str(folder), cache=tmp_path / "cache")
    chosen = select_cells(
        study.cells(options), ["SA-CE", "GMSA-CE", "GAT-AdvFr", "profiles", "classes", "listing"]
    )
    rows = {row.name: row for row in run_cells(chosen, tmp_path / "out", say=lambda line: None)}
    assert not any(row.errors for row in rows.values()), [row.errors for row in rows.values()]
    assert set(rows["SA-CE"].values) >= {
        "gap",
        "map",
        "perr",
        "hit_at_1",
        "gap_attacked",
        "map_distance",
    }
    assert 0 < rows["profiles"].values["GMSA-CE overlap"][0] <= 1
    assert "GMSA-CE" in (tmp_path / "out" / "table.txt").read_text()
