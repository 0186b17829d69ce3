"""Mixup and CutMix on values worked by hand."""

from __future__ import annotations

import pytest
import torch

from marey.transforms.mixing import cutmix, mixup

PARTNER = torch.tensor([1, 0])
TARGETS = torch.eye(2)


def two_clips(T: int = 2, H: int = 4, W: int = 8) -> torch.Tensor:
    """A clip of zeros and a clip of ones, (2, T, 3, H, W)."""
    return torch.stack([torch.zeros(T, 3, H, W), torch.ones(T, 3, H, W)])


def test_mixup_blends_clips_and_targets_alike() -> None:
    clip, targets = mixup(two_clips(), TARGETS, 0.75, PARTNER)
    assert torch.equal(clip[0], torch.full((2, 3, 4, 8), 0.25))
    assert torch.equal(targets, torch.tensor([[0.75, 0.25], [0.25, 0.75]]))


def test_a_share_of_one_changes_nothing() -> None:
    clip = torch.rand(2, 2, 3, 4, 8)
    for mixed, targets in (
        mixup(clip, TARGETS, 1.0, PARTNER),
        cutmix(clip, TARGETS, 1.0, PARTNER, (0.5, 0.5)),
    ):
        assert torch.equal(mixed, clip)
        assert torch.equal(targets, TARGETS)


def test_cutmix_pastes_one_box_into_every_frame() -> None:
    # A quarter of the area is a box of half the width and half the height.
    clip, targets = cutmix(two_clips(), TARGETS, 0.75, PARTNER, (0.5, 0.5))
    expected = torch.zeros(4, 8)
    expected[1:3, 2:6] = 1
    assert torch.equal(clip[0], expected.expand(2, 3, 4, 8))
    assert torch.equal(targets[0], torch.tensor([0.75, 0.25]))


def test_the_targets_share_is_that_of_the_pixels_pasted_where_the_box_leaves_the_frame() -> None:
    clip, targets = cutmix(two_clips(), TARGETS, 0.75, PARTNER, (0.0, 0.0))
    pasted = clip[0, 0, 0].mean().item()
    assert 0 < pasted < 0.25
    assert targets[0, 1].item() == pytest.approx(pasted)
