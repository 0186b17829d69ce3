from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.datasets.youtube8m_loading import IndexedExamples
from marey.datasets.youtube8m_shards import open_feature_set
from marey.errors import UserError
from marey.synthetic.youtube8m import MiniWorld, Pool, draw_video, leaf_names, render_youtube8m_mini

FEW = {"train": 6, "validate": 3, "test": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_youtube8m_mini(tmp_path_factory.mktemp("mini") / "data", videos=FEW, shards=2)


def test_the_folder_is_read_like_youtube8m(folder):
    data = open_feature_set(folder)
    assert data.features == {"rgb": 32, "audio": 16}
    assert len(data.space.class_names) == 24  # 18 leaves and 6 parents
    train = IndexedExamples(data.shards("train"), data.space, features=data.features)
    assert len(train) == 6
    assert [len(data.shards(name)) for name in ("train", "validate", "test")] == [2, 2, 2]
    assert 30 <= len(train[0]["features"]["rgb"]) <= 44


def test_a_leaf_implies_its_parent(folder):
    data = open_feature_set(folder)
    for sample in (
        IndexedExamples(data.shards("test"), data.space, features=data.features)[i]
        for i in range(3)
    ):
        names = {data.space.class_names[k] for k in sample["targets"].nonzero().flatten()}
        assert {name.split(":")[0] for name in names if ":" in name} == {
            name for name in names if ":" not in name
        }


def test_same_seed_same_bytes(folder, tmp_path):
    again = render_youtube8m_mini(tmp_path / "again", videos=FEW, shards=2)
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    other = render_youtube8m_mini(tmp_path / "other", videos=FEW, shards=2, seed=1)
    assert (other / "train0000.tfrecord").read_bytes() != (
        folder / "train0000.tfrecord"
    ).read_bytes()


def test_partitions_share_motifs_but_neither_scenes_nor_looks():
    pools = [Pool(MiniWorld(), 0, 0, partition) for partition in range(3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(pools[one].scenes[:, None] - pools[other].scenes[None]).max(-1).min() > 1e-3
        assert (
            np.abs(pools[one].looks[:, :, None] - pools[other].looks[:, None]).max(-1).min() > 1e-3
        )
        centres = [pool.looks.mean(1) for pool in (pools[one], pools[other])]
        assert (
            np.linalg.norm(centres[0] - centres[1], axis=1) < np.linalg.norm(centres[0], axis=1)
        ).all()


def test_an_event_shows_both_motifs_of_its_class_in_turn():
    world = MiniWorld(noise=0.0, decoys=0.0, look_change=0.0)
    pools = (Pool(world, 0, 0, 0), Pool(world, 1, 0, 0))
    example, events = draw_video("v", pools, world, np.random.default_rng(3))
    label, start, end = events[0]
    motifs = pools[0].looks[list(pools[0].pairs[label]), 0]
    rgb = example.values("rgb")[start:end] @ motifs.T / 16
    assert (np.diff(rgb.argmax(1)) != 0).all()  # they alternate
    assert label in example.labels


def test_events_are_listed_with_their_seconds(folder):
    with (folder / "events.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} <= set(leaf_names())
    assert all(6 <= int(row["end_seconds"]) - int(row["start_seconds"]) <= 8 for row in rows)


def test_a_folder_in_use_and_unknown_partitions_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="already holds something"):
        render_youtube8m_mini(folder)
    with pytest.raises(UserError, match="partition 'dev' is unknown"):
        render_youtube8m_mini(tmp_path / "x", videos={"dev": 1})
