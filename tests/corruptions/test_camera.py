"""Rotation equals Pillow's bit for bit; translation shows what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import marey
from marey.corruptions.camera import rotate_nearest


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (60, 41)])
@pytest.mark.parametrize("degrees", [7.5, 15, 30, 45, 90, -13, -31, 180, 270, 0, 25])
def test_rotation_equals_pillow(size: tuple[int, int], degrees: float) -> None:
    image_module = pytest.importorskip("PIL.Image")
    pixels = torch.randint(
        0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    expected = image_module.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy()).rotate(
        degrees
    )
    ours = rotate_nearest(pixels, degrees)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours, np.array(expected))


def test_random_rotation_differs_between_frames_and_static_does_not() -> None:
    still = (
        torch.randint(0, 256, (1, 3, 50, 50), dtype=torch.uint8).expand(4, 3, 50, 50).contiguous()
    )
    static = marey.corrupt(still, "static_rotate", 2)
    assert all(torch.equal(static[0], frame) for frame in static)
    random = marey.corrupt(still, "random_rotate", 5)
    assert any(not torch.equal(random[0], frame) for frame in random)


def test_translation_shifts_every_frame_alike_and_fills_with_black() -> None:
    clip = (
        torch.arange(1, 51, dtype=torch.uint8).view(1, 1, 1, 50).expand(2, 3, 224, 50).contiguous()
    )
    clip = torch.nn.functional.pad(clip, (0, 174))
    moved = marey.corrupt(clip, "translate", 5, generator=torch.Generator().manual_seed(4))
    assert torch.equal(moved[0], moved[1])
    shift = int(moved[0, 0, 0, 0]) - 1 if moved[0, 0, 0, 0] else 50
    assert 0 <= shift <= 39
    assert moved[0, 0, 0, : 50 - shift].tolist() == list(range(shift + 1, 51))
