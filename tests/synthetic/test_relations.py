from __future__ import annotations

import pytest
import torch

from marey.datasets.ava import open_ava
from marey.errors import UserError
from marey.synthetic.relations import (
    POSTURE,
    RELATIONS,
    TWINS,
    mask_outside,
    read_tubes,
    render_relation,
    render_relations,
)

pytest.importorskip("pybullet")


def test_twins_share_the_movement_of_the_labelled_person():
    assert {*TWINS, *TWINS.values()} == set(RELATIONS)
    assert all(POSTURE[label] == POSTURE[twin] for label, twin in TWINS.items())


def test_the_labelled_person_looks_the_same_whatever_the_other_does():
    """The same seed gives both twins the same bodies; the difference is outside person 0."""
    watch, wait = (render_relation(label, seed=3, num_frames=2) for label in ("watch", "wait"))
    assert watch.actions[0] == wait.actions[0] == "stand"
    assert watch.actions[1] != wait.actions[1] == "stand"
    again = render_relation("watch", seed=3, num_frames=2)
    assert torch.equal(again.clip.frames, watch.clip.frames)


def test_scenes_are_in_ava_s_layout_with_one_labelled_person_and_its_tube(tmp_path):
    render_relations(tmp_path, 2, split="test", num_frames=4)
    index = open_ava(tmp_path, "test")
    assert index.class_names == RELATIONS
    labels = [index.class_names[int(key.labels[0].argmax())] for key in index.key_frames]
    assert labels == list(RELATIONS[:2])
    tubes = read_tubes(tmp_path)
    for key in index.key_frames:
        assert len(key.boxes_xyxy_norm) == 1
        torch.testing.assert_close(tubes[key.video][2], key.boxes_xyxy_norm[0])


def test_heads_and_hands_are_on_the_person():
    scene = render_relation("wait", seed=5, num_frames=1)
    head, right, left = (scene.head_and_hands_xy_norm[0, 0] * 112).tolist()
    x1, y1, x2, y2 = scene.boxes_xyxy[0, 0].tolist()
    assert y1 - 2 <= head[1] <= y1 + 0.25 * (y2 - y1)
    for x, y in (right, left):
        assert x1 - 3 <= x <= x2 + 3
        assert y1 + 0.25 * (y2 - y1) <= y <= y2


def test_outside_the_boxes_is_grey():
    frames = torch.full((2, 3, 10, 20), 7, dtype=torch.uint8)
    masked = mask_outside(frames, torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]]))
    assert bool((masked[0, :, :5, :10] == 7).all())
    assert bool((masked[0, :, 5:] == 128).all())
    assert bool((masked[1] == 128).all())


def test_an_unknown_relation_is_refused():
    with pytest.raises(UserError, match="unknown relation 'wach'; did you mean 'watch'"):
        render_relation("wach", seed=0)
