"""The study's extension, by hand and by its own description."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.video.extension import brighten_frames, extend_frames, interpolate_frames


def flat(*values: int) -> torch.Tensor:
    """Frames of one grey value each, (L, 3, 2, 2)."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def values(frames: torch.Tensor) -> list[int]:
    """The grey value of each frame."""
    return frames[:, 0, 0, 0].tolist()


def test_a_long_enough_video_is_left_alone():
    assert values(extend_frames(flat(10, 20, 30), 3)) == [10, 20, 30]


def test_averages_come_first():
    assert values(extend_frames(flat(10, 20, 40), 5)) == [10, 15, 20, 30, 40]
    assert values(extend_frames(flat(10, 20, 40), 4)) == [10, 15, 20, 30]


def test_then_the_reverse_is_appended():
    assert values(extend_frames(flat(10, 20, 40), 8)) == [10, 15, 20, 30, 40, 40, 30, 20]


def test_then_brightness_in_the_order_of_the_study():
    extended = values(extend_frames(flat(10, 20), 6 + 4 * 6))
    once = [10, 15, 20, 20, 15, 10]
    expected = once + [round(v * f) for f in (0.6, 0.8, 1.2, 1.4) for v in once]
    assert extended == expected


def test_one_frame_reaches_the_study_length_of_256():
    assert len(extend_frames(flat(7), 256)) == 256


def test_two_rounds_are_the_first_round_gone_through_again():
    first = extend_frames(flat(10, 20), 30)
    assert torch.equal(extend_frames(flat(10, 20), 59), interpolate_frames(first))
    assert values(extend_frames(flat(10, 20), 31)) == values(interpolate_frames(first))[:31]


def test_averaging_does_not_overflow_and_brightness_is_cut():
    assert values(interpolate_frames(flat(255, 254))) == [255, 254, 254]
    assert values(brighten_frames(flat(200, 100), 1.4)) == [255, 140]
    assert interpolate_frames(flat(3, 5)).dtype == torch.uint8


def test_what_cannot_be_extended_is_named():
    with pytest.raises(UserError, match="L >= 1"):
        extend_frames(torch.zeros(0, 3, 4, 4, dtype=torch.uint8), 8)
    with pytest.raises(UserError, match="uint8"):
        extend_frames(torch.zeros(2, 3, 4, 4), 8)
