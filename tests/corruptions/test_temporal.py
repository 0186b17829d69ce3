"""Temporal kinds as index functions on source frames, worked by hand."""

from __future__ import annotations

import pytest
import torch

from marey.corruptions import corruption
from marey.errors import UserError


def order(name: str, T: int, severity: int, seed: int = 0) -> list[int]:
    return corruption(name, severity).frame_order(T, generator=torch.Generator().manual_seed(seed))


def test_sampling_repeats_each_kept_frame() -> None:
    assert order("frame_sampling", 7, 1) == [0, 0, 2, 2, 4, 4, 6]
    assert order("frame_sampling", 7, 5) == [0] * 7


def test_reverse_sampling_is_sampling_played_backwards() -> None:
    assert order("reverse_sampling", 7, 1) == [6, 4, 4, 2, 2, 0, 0]


def test_jumble_keeps_each_frame_in_its_segment_and_severity_five_disturbs_least() -> None:
    for severity, segment in zip(range(1, 6), (32, 16, 8, 4, 2), strict=True):
        shuffled = order("jumble", 70, severity)
        assert sorted(shuffled) == list(range(70))
        assert all(i // segment == j // segment for i, j in enumerate(shuffled))

    def displacement(severity: int) -> float:
        return sum(
            abs(i - j)
            for seed in range(5)
            for i, j in enumerate(order("jumble", 70, severity, seed))
        )

    assert displacement(5) < displacement(3) < displacement(1)


def test_box_jumble_keeps_segments_whole() -> None:
    shuffled = order("box_jumble", 13, 1)  # segments of 4: 0-3, 4-7, 8-11, 12
    assert sorted(shuffled) == list(range(13))
    starts = [i for i in shuffled if i % 4 == 0]
    assert shuffled == [j for i in starts for j in range(i, min(i + 4, 13))]


@pytest.mark.parametrize(("severity", "kept"), [(1, 40), (2, 20), (3, 10), (4, 5), (5, 1)])
def test_freeze_shows_a_sorted_share_of_the_frames(severity: int, kept: int) -> None:
    shown = order("freeze", 100, severity)
    assert len(shown) == 100
    assert len(set(shown)) == kept
    assert shown == sorted(shown)
    first = shown[0]
    assert all(i >= source for i, source in enumerate(shown[first:], start=first))


def test_a_clip_of_one_frame_is_left_alone() -> None:
    for name in ("frame_sampling", "reverse_sampling", "jumble", "box_jumble", "freeze"):
        assert order(name, 1, 5) == [0]


def test_a_pixel_kind_or_an_empty_video_is_refused() -> None:
    with pytest.raises(UserError, match="'fog' changes pixels, not the order"):
        corruption("fog").frame_order(5)
    with pytest.raises(UserError, match="at least one frame"):
        corruption("freeze").frame_order(0)
