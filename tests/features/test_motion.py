"""What the motion vector sees and what it must not see."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from marey.features.motion import MOTION_DIM, motion_vector, small_grey


def moving(step: float, *, top: int = 20, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    """A bright square that goes right over a fixed texture, uint8 (12, 3, H, W)."""
    ground = torch.randint(60, 120, (3, 64, 64), generator=torch.Generator().manual_seed(0))
    frames = []
    for t in range(12):
        frame = ground.clone()
        left = 4 + int(step * t)
        frame[:, top : top + 12, left : left + 12] = 220
        frames.append(frame)
    clip = torch.stack(frames).float()
    return torch.nn.functional.interpolate(clip, size=size).to(torch.uint8)


def test_a_still_picture_has_no_motion():
    still = motion_vector(small_grey(moving(0)))
    assert still.shape == (MOTION_DIM,)
    speeds = still[: (MOTION_DIM - 8) // 2]
    assert float(motion_vector(small_grey(moving(3)))[: len(speeds)].abs().mean()) > 5 * float(
        speeds.abs().mean()
    )


def test_speed_is_per_second_whatever_the_rate():
    grey = small_grey(moving(2))
    slow = motion_vector(grey, [k / 10 for k in range(12)])
    fast = motion_vector(grey, [k / 20 for k in range(12)])
    assert_close(fast[1:6], 2 * slow[1:6], rtol=1e-4, atol=1e-6)  # mean quantiles of speed


def test_size_of_the_picture_and_place_in_it_hardly_count():
    one = motion_vector(small_grey(moving(3)))
    other = motion_vector(small_grey(moving(3, size=(128, 192))))
    still = motion_vector(small_grey(moving(0)))
    lower = motion_vector(small_grey(moving(3, top=36)))
    apart = float((one - still).norm())
    assert float((one - other).norm()) < 0.2 * apart
    assert float((one - lower).norm()) < 0.4 * apart


def test_one_frame_and_many_are_described():
    for count in (1, 2, 70):
        grey = small_grey(moving(1))[:1].expand(count, -1, -1, -1)
        vector = motion_vector(grey)
        assert vector.shape == (MOTION_DIM,)
        assert bool(vector.isfinite().all())
