"""One rendered clip: seeds, boxes, and the person before a moving background. Rendering needs
pybullet."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.synthetic.clip import (
    background_offsets,
    composite,
    degrade,
    draw_cameras,
    mask_box,
    render_clip,
)

needs_pybullet = pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None,
    reason="rendering needs pybullet (the extra mocap)",
)


@needs_pybullet
def test_same_seed_gives_same_bytes_and_another_seed_does_not():
    first, again, other = (
        render_clip("punch", seed=seed, size=32, num_frames=3) for seed in (5, 5, 6)
    )
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


def test_the_box_of_a_mask_is_tight_and_empty_masks_have_none():
    mask = torch.zeros(6, 8, dtype=torch.bool)
    assert mask_box(mask).tolist() == [0, 0, 0, 0]
    mask[2:4, 3:7] = True
    assert mask_box(mask).tolist() == [3, 2, 7, 4]


def test_a_person_covers_the_wall_and_the_wall_moves_with_its_offset():
    wall = torch.linspace(0, 1, 16).view(1, 1, 16).expand(3, 16, 16).contiguous()
    picture = np.full((8, 8, 3), 255, dtype=np.uint8)
    nobody, everybody = np.zeros((8, 8), dtype=bool), np.ones((8, 8), dtype=bool)
    assert (composite(picture, everybody, wall, (0.0, 0.0), 8) == 255).all()
    still = composite(picture, nobody, wall, (0.0, 0.0), 8).float()
    moved = composite(picture, nobody, wall, (0.25, 0.0), 8).float()
    # A quarter of the frame to the right: column 2 shows what column 0 showed.
    torch.testing.assert_close(moved[..., 2:], still[..., :-2], atol=2.0, rtol=0)


def test_a_cheap_camera_keeps_shape_and_type_and_repeats_by_its_seed():
    frames = torch.randint(
        0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    first, again, other = (
        degrade(frames, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert (first.shape, first.dtype) == (frames.shape, frames.dtype)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@needs_pybullet
def test_the_wall_moves_against_the_camera():
    roots = np.tile(np.array([0.0, 1.0, 0.0]), (4, 1))
    cameras = draw_cameras(roots, "train", torch.Generator().manual_seed(0))
    offsets = background_offsets(cameras, depth=3.0)
    assert offsets[0] == (0.0, 0.0)
    assert len(offsets) == 4
