"""Optical flow of pictures whose motion is known."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.features.flow import box_mean, optical_flow


def texture(seed: int = 0) -> torch.Tensor:
    noise = torch.rand(1, 1, 80, 80, generator=torch.Generator().manual_seed(seed)) * 255
    return box_mean(box_mean(noise, 5), 5) * 3


@pytest.mark.parametrize(("right", "down"), [(0, 0), (1, 0), (0, -2), (4, 3)])
def test_a_shifted_texture_has_moved_by_the_shift(right, down):
    big = texture()
    before, after = big[..., 8:72, 8:72], big[..., 8 - down : 72 - down, 8 - right : 72 - right]
    flow = optical_flow(before, after)
    inner = flow[0, :, 12:-12, 12:-12].flatten(1).median(1).values
    assert_close(inner, torch.tensor([right, down], dtype=torch.float32), atol=0.25, rtol=0)


def test_flat_pictures_claim_no_motion():
    flat = torch.full((2, 1, 32, 32), 90.0)
    assert float(optical_flow(flat, flat + 20).abs().max()) == 0


def test_pairs_do_not_touch_one_another():
    before, after = texture(1)[..., :64, :64], texture(2)[..., :64, :64]
    alone = optical_flow(before, after)
    together = optical_flow(torch.cat((before, after)), torch.cat((after, before)))
    assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)
