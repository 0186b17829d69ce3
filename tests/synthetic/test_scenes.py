"""Scenes of several persons: boxes of what is visible, and AVA's layout. Rendering needs
pybullet."""

from __future__ import annotations

import csv
import importlib.util

import pytest
import torch

from marey.synthetic.scenes import render_ava, render_scene

needs_pybullet = pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None,
    reason="rendering needs pybullet (the extra mocap)",
)


@needs_pybullet
def test_scene_boxes_hold_exactly_the_visible_pixels_of_each_person():
    scene = render_scene(seed=3, width=64, height=48, num_frames=3, num_persons=3)
    assert scene.clip.frames.shape == (3, 3, 48, 64)
    assert len(set(scene.actions)) == 3
    assert bool(scene.visible.any())
    for t in range(3):
        for p in range(3):
            if scene.visible[t, p]:
                x1, y1, x2, y2 = (int(v) for v in scene.boxes_xyxy[t, p])
                mine = scene.persons[t] == p
                assert mine[y1:y2, x1:x2].sum() == mine.sum()
            else:
                assert scene.boxes_xyxy[t, p].abs().sum() == 0
    again = render_scene(seed=3, width=64, height=48, num_frames=3, num_persons=3)
    assert torch.equal(scene.clip.frames, again.clip.frames)


@needs_pybullet
def test_scenes_are_written_in_the_layout_of_ava(tmp_path):
    render_ava(
        tmp_path,
        2,
        split="val",
        width=64,
        height=64,
        num_frames=3,
        actions=("walk", "punch", "jump"),
    )
    render_ava(
        tmp_path,
        1,
        split="test",
        width=64,
        height=64,
        num_frames=3,
        actions=("walk", "punch", "jump"),
    )
    with open(tmp_path / "ava_val.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows
    for video, second, *box, action, _person in rows:
        assert video.startswith("scene_val_")
        assert second == "0902"
        assert all(0 <= float(v) <= 1 for v in box)
        assert action in {"1", "2", "3"}
    assert len(list((tmp_path / "frames").iterdir())) == 3
    assert 'name: "punch"\n  id: 2' in (tmp_path / "ava_action_list.pbtxt").read_text()
    with open(tmp_path / "scenes.csv", newline="") as file:
        assert [row["split"] for row in csv.DictReader(file)] == ["val", "val", "test"]
