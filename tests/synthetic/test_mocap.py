"""Rendered clips: seeds, partitions, boxes, packed folders. Rendering needs pybullet; those tests skip without it."""

from __future__ import annotations

import csv
import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.synthetic import motion
from marey.synthetic.clip import render_clip
from marey.synthetic.dataset import PackedClips, RenderPlan, render_dataset
from marey.synthetic.motion import list_actions, reversed_name
from marey.synthetic.scenes import render_ava, render_scene

needs_pybullet = pytest.mark.skipif(importlib.util.find_spec("pybullet") is None,
                                    reason="rendering needs pybullet (the extra mocap)")


def test_there_are_15_recordings_8_named_reversals_and_30_classes_in_all():
    assert [len(list_actions(kind)) for kind in ("none", "named", "all")] == [15, 23, 30]
    assert reversed_name("walk") == "walk backwards"
    assert reversed_name("walk backwards") == "walk"
    assert reversed_name("kick") == "kick reversed"
    assert all(reversed_name(reversed_name(name)) == name for name in list_actions("all"))


def test_no_value_of_one_split_lies_in_an_interval_of_another():
    for name, splits in motion.PARTITIONS.items():
        intervals = sorted((low, high, split) for split, spans in splits.items() for low, high in spans)
        for (_, high, _), (low, _, _) in pairwise(intervals):
            assert high <= low + 1e-9, name


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_drawn_values_lie_in_the_intervals_of_their_split(split):
    generator = torch.Generator().manual_seed(3)
    for name, splits in motion.PARTITIONS.items():
        for _ in range(50):
            value = motion.draw(name, split, generator)
            assert any(low <= value < high for low, high in splits[split]), name


def test_a_plan_gives_every_split_every_class_in_turn():
    plan = RenderPlan()
    clips = [plan.clip(i) for i in range(230)]
    assert sum(split == "train" for _, split, _ in clips) == 184
    for split, each in (("train", 8), ("val", 1), ("test", 1)):
        actions = [action for action, s, _ in clips if s == split]
        assert all(actions.count(name) == each for name in list_actions())
    assert len({seed for _, _, seed in clips}) == 230


def test_quaternion_product_of_two_quarter_turns_is_a_half_turn():
    quarter = np.array([np.sqrt(0.5), 0, np.sqrt(0.5), 0])
    np.testing.assert_allclose(motion.quaternion_product(quarter, quarter), [0, 0, 1, 0], atol=1e-12)


@needs_pybullet
def test_motions_go_on_smoothly_from_cycle_to_cycle_and_run_backwards():
    walk = motion.load_motion("walk")
    around = walk.poses(np.array([walk.seconds - 1e-4, walk.seconds + 1e-4]))
    np.testing.assert_allclose(around[0, :3], around[1, :3], atol=0.02)
    back = motion.load_motion("walk backwards")
    np.testing.assert_allclose(back.poses(np.array([0.3])), walk.poses(np.array([walk.seconds - 0.3])), atol=1e-9)
    forward_travel = walk.poses(np.array([0.0, 3 * walk.seconds]))[:, 0]
    assert forward_travel[1] - forward_travel[0] > 3.0


@needs_pybullet
def test_same_seed_gives_same_bytes_and_another_seed_does_not():
    first, again, other = (render_clip("punch", seed=seed, size=32, num_frames=3) for seed in (5, 5, 6))
    assert torch.equal(first.clip.frames, again.clip.frames)
    assert not torch.equal(first.clip.frames, other.clip.frames)
    assert first.clip.frames.shape == (3, 3, 32, 32)
    assert first.clip.frames.dtype == torch.uint8


@needs_pybullet
def test_boxes_are_the_tight_boxes_of_the_masks():
    rendered = render_clip("cartwheel", seed=1, size=48, num_frames=4)
    for mask, box in zip(rendered.masks, rendered.boxes_xyxy, strict=True):
        x1, y1, x2, y2 = (int(v) for v in box)
        assert mask[y1:y2, x1:x2].sum() == mask.sum() > 20
        edges = (mask[y1], mask[y2 - 1], mask[:, x1], mask[:, x2 - 1])
        assert all(edge.any() for edge in edges)


@needs_pybullet
def test_an_unknown_action_names_the_nearest():
    with pytest.raises(UserError, match="unknown action 'wolk'; did you mean 'walk'"):
        render_clip("wolk", seed=0)
    with pytest.raises(UserError, match="unknown split 'training'; did you mean 'train'"):
        render_clip("walk", seed=0, split="training")


@needs_pybullet
def test_a_rendered_folder_is_resumed_grows_and_opens_by_the_data_contract(tmp_path):
    from marey.datasets import open_dataset

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
    render_ava(tmp_path, 2, split="val", width=64, height=64, num_frames=3, actions=("walk", "punch", "jump"))
    render_ava(tmp_path, 1, split="test", width=64, height=64, num_frames=3, actions=("walk", "punch", "jump"))
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
