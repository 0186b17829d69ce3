"""The packed folder of windows: whole or not at all, the same bytes for the same seed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marey.datasets.open import open_dataset
from marey.datasets.poses import PoseWindows
from marey.errors import UserError
from marey.synthetic.poses.render import SPLITS, PosePlan, render_poses
from marey.synthetic.poses.vocabulary import VOCABULARY

pytest.importorskip("pybullet_data", reason="recordings of DeepMimic are inside pybullet")


def test_the_same_plan_gives_the_same_bytes_and_another_seed_others(tmp_path, cmu_folder):
    plan = PosePlan(cmu=str(cmu_folder))
    first = render_poses(tmp_path / "a", 40, plan, workers=0)
    again = render_poses(tmp_path / "b", 40, plan, workers=0)
    other = render_poses(tmp_path / "c", 40, PosePlan(cmu=str(cmu_folder), seed=1), workers=0)
    read = {
        name: (folder / "keypoints.npy").read_bytes()
        for name, folder in (("a", first), ("b", again), ("c", other))
    }
    assert read["a"] == read["b"] != read["c"]
    assert (first / "manifest.csv").read_text() == (again / "manifest.csv").read_text()


def test_actions_that_count_for_one_answer_take_half_as_many_turns(cmu_folder):
    plan = PosePlan(cmu=str(cmu_folder))
    turns = plan.turns(plan.library())
    counted = {label: turns.count(label) for label in set(turns)}
    assert counted["kick"] == counted["punch"] == counted["push"] == counted["fight"] == 1
    assert counted["point"] == counted["wave or signal"] == 1
    assert counted["walk"] == counted["hug"] == counted["sit"] == 2
    assert set(turns) == set(VOCABULARY) - {"other"}


def test_a_longer_set_begins_with_the_shorter_one(tmp_path, cmu_folder):
    plan = PosePlan(cmu=str(cmu_folder))
    short = np.load(render_poses(tmp_path / "a", 12, plan, workers=0) / "keypoints.npy")
    long = np.load(render_poses(tmp_path / "b", 24, plan, workers=0) / "keypoints.npy")
    np.testing.assert_array_equal(short, long[:12])


def test_the_folder_opens_as_a_data_set_with_its_splits(tmp_path, cmu_folder):
    folder = render_poses(tmp_path / "a", 120, PosePlan(cmu=str(cmu_folder)), workers=0)
    index = open_dataset(folder)
    assert len(index) == 120
    assert set(index.class_names) <= set(VOCABULARY)
    assert len(index.split("train")) == 120 * SPLITS.count("train") // len(SPLITS)
    windows = PoseWindows(index.split("val"))
    item = windows[(0, 3)]
    assert item["clip"].shape == (16, 34, 3)
    assert index.class_names[item["label"]] == windows.index.samples[3].label


def test_a_rendered_folder_is_kept_and_another_plan_is_refused(tmp_path, cmu_folder):
    plan = PosePlan(cmu=str(cmu_folder))
    folder = render_poses(tmp_path / "a", 12, plan, workers=0)
    before = (folder / "keypoints.npy").stat().st_mtime_ns
    render_poses(folder, 12, plan, workers=0)
    assert (folder / "keypoints.npy").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="rendered with other settings"):
        render_poses(folder, 24, plan, workers=0)


def test_a_foreign_folder_stays_untouched(tmp_path, cmu_folder):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another --out"):
        render_poses(tmp_path, 12, PosePlan(cmu=str(cmu_folder)), workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_rendering_leaves_nothing(tmp_path, cmu_folder):
    def stop(parts, total):
        raise KeyboardInterrupt
        yield from parts

    with pytest.raises(KeyboardInterrupt):
        render_poses(tmp_path / "a", 12, PosePlan(cmu=str(cmu_folder)), workers=0, progress=stop)
    assert not (tmp_path / "a").exists()


def test_a_folder_of_pictures_is_no_set_of_poses(tmp_path):
    (tmp_path / "packed.json").write_text(json.dumps({"format": 1, "kind": "mocap"}))
    (tmp_path / "manifest.csv").write_text("path,label\nframes.npy#0,walk\n")
    with pytest.raises(UserError, match="holds no windows of keypoints"):
        PoseWindows(open_dataset(tmp_path))
