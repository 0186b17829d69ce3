from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.datasets.youtube8m import FrameExample, read_examples, write_examples
from marey.errors import UserError
from marey.papers import gat_study as study
from marey.papers.cells import ReproduceOptions
from marey.recipes.gat import gat_youtube8m_mini
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import override

WIDTHS = {"rgb": 32, "audio": 16}


@pytest.fixture
def folder(tmp_path):
    return render_youtube8m_mini(
        tmp_path / "data", shards=1, videos={"train": 4, "validate": 6, "test": 3}
    )


def opened(folder, *settings):
    config = override(gat_youtube8m_mini(), settings)
    return study.Study(options=ReproduceOptions(data=str(folder)), config=config, rows={})


def ids(videos):
    return [videos[i]["id"] for i in range(len(videos))]


def without_labels(folder, name):
    path = folder / f"{name}0000.tfrecord"
    videos = [
        FrameExample(id=one.id, labels=(), features=one.features)
        for one in read_examples(path, WIDTHS)
    ]
    write_examples(path, videos)


def test_the_mini_data_is_rendered_once(tmp_path, monkeypatch):
    calls = []

    def render(out, **options):
        calls.append(out)
        return render_youtube8m_mini(out, videos={"train": 2}, shards=1)

    monkeypatch.setattr(study, "render_youtube8m_mini", render)
    shared = study.Study(
        options=ReproduceOptions(cache=tmp_path), config=gat_youtube8m_mini(), rows={}
    )
    assert shared.data() == shared.data()
    assert shared.data().parent == tmp_path
    assert len(calls) == 1
    monkeypatch.setattr(study, "code_digest", lambda: "another version")
    assert shared.data()
    assert len(calls) == 2


def test_the_test_set_is_the_rest_of_the_validate_shards(folder):
    shared = opened(folder, "data.features.max_val_videos=4")
    chosen, tested = ids(shared.videos("validate")), ids(shared.videos("test"))
    assert (len(chosen), len(tested)) == (4, 2)
    assert not set(chosen) & set(tested)
    assert chosen + tested == ids(opened(folder).videos("validate"))
    with pytest.raises(UserError, match="all of which choose the checkpoint"):
        opened(folder, "data.features.max_val_videos=6").videos("test")


def test_the_mini_data_has_a_test_partition_of_its_own(folder):
    shared = opened(folder)
    assert [name[0] for name in ids(shared.videos("test"))] == ["t"] * 3
    assert len(shared.videos("validate")) == 6


def test_unlabelled_test_shards_are_refused(folder):
    without_labels(folder, "test")
    with pytest.raises(UserError, match=r"none of the first 3 videos of .*test0000.* has a label"):
        opened(folder).videos("test")


def test_damaged_records_are_treated_as_in_training(folder):
    path = folder / "test0000.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert len(opened(folder, "data.features.on_corrupt=skip").videos("test")) == 2
    with pytest.raises(UserError):
        ids(opened(folder).videos("test"))


def test_evaluation_runs_on_the_device_asked_for(folder):
    options = ReproduceOptions(data=str(folder), device="meta")
    shared = replace(opened(folder), options=options)
    batch = next(iter(shared.batches("test")))
    assert {values.device.type for values in batch["features"].values()} == {"meta"}


def test_the_norm_of_the_frames_is_measured_by_feature(folder):
    norms = opened(folder).frame_norms()
    assert set(norms) == {"rgb", "audio"}
    assert all(2 < norm < 6 for norm in norms.values())
