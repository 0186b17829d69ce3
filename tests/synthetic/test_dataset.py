"""Folders of rendered clips: the plan of classes and splits, resuming, the data contract. Rendering
needs pybullet."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from marey.datasets import open_dataset
from marey.errors import UserError
from marey.synthetic.dataset import PackedClips, RenderPlan, render_dataset
from marey.synthetic.motion import list_actions

needs_pybullet = pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None,
    reason="rendering needs pybullet (the extra mocap)",
)


def test_a_plan_gives_every_split_every_class_in_turn():
    plan = RenderPlan()
    clips = [plan.clip(i) for i in range(230)]
    assert sum(split == "train" for _, split, _ in clips) == 184
    for split, each in (("train", 8), ("val", 1), ("test", 1)):
        actions = [action for action, s, _ in clips if s == split]
        assert all(actions.count(name) == each for name in list_actions())
    assert len({seed for _, _, seed in clips}) == 230


@needs_pybullet
def test_a_rendered_folder_is_resumed_grows_and_opens_by_the_data_contract(tmp_path):
    plan = RenderPlan(size=16, num_frames=2, actions=("walk", "run"))
    out = render_dataset(tmp_path / "set", 10, plan, workers=0)
    first = np.load(out / "frames.npy").copy()
    assert render_dataset(out, 12, plan, workers=0, progress=lambda done, wanted: None) == out
    grown = np.load(out / "frames.npy")
    assert grown.shape == (12, 2, 3, 16, 16)
    np.testing.assert_array_equal(grown[:10], first)
    clips = PackedClips(out, "val")
    assert len(clips) == 1
    assert clips[0]["frames"].shape == (2, 3, 16, 16)
    assert clips.boxes(0).shape == (2, 4)
    index = open_dataset(out)
    assert set(index.class_names) == {"walk", "run"}
    assert len(index.split("train")) == 10
    with pytest.raises(UserError, match="rendered with other settings"):
        render_dataset(out, 10, RenderPlan(size=32, num_frames=2), workers=0)


@needs_pybullet
def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a rendered folder"):
        render_dataset(tmp_path, 4, workers=0)
