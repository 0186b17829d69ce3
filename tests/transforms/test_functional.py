"""Geometry and normalisation against hand-worked values and naive code."""

from __future__ import annotations

import math

import pytest
import torch

from marey.errors import UserError
from marey.transforms import functional as F


def noise(*shape: int) -> torch.Tensor:
    """uint8 noise, always the same."""
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((240, 320), 256, (256, 341)),
        ((320, 240), 256, (341, 256)),
        ((256, 256), 224, (224, 224)),
        ((720, 1280), 224, (224, 398)),
    ],
)
def test_short_side_sizes_are_those_of_slowfast(size, short, expected):
    assert F.short_side_size(*size, short) == expected


def test_crop_offsets_by_hand():
    assert F.crop_offsets(256, 341, 224, 1) == [(16, 59)]  # ceil(117 / 2) = 59
    assert F.crop_offsets(224, 299, 224, 3) == [(0, 0), (0, 38), (0, 75)]
    assert F.crop_offsets(299, 224, 224, 3) == [(0, 0), (38, 0), (75, 0)]
    assert F.crop_offsets(257, 300, 224, 3) == [(17, 0), (17, 38), (17, 76)]


def official_uniform_crop(height, width, size, spatial_idx):
    """SlowFast `transform.uniform_crop`, its arithmetic."""
    y_offset, x_offset = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        y_offset = {0: 0, 1: y_offset, 2: height - size}[spatial_idx]
    else:
        x_offset = {0: 0, 1: x_offset, 2: width - size}[spatial_idx]
    return y_offset, x_offset


def test_crop_offsets_are_the_official_ones_for_many_sizes():
    for height, width in [(224, 224), (225, 300), (301, 224), (256, 455), (600, 233)]:
        assert F.crop_offsets(height, width, 224, 3) == [
            official_uniform_crop(height, width, 224, s) for s in range(3)
        ]


def test_crops_too_large_or_too_many_are_named():
    with pytest.raises(UserError, match="needs frames at least that large, got 100 x 300"):
        F.crop_offsets(100, 300, 224, 1)
    with pytest.raises(UserError, match="1 or 3 spatial crops, got 5"):
        F.crop_offsets(300, 300, 224, 5)


def test_resize_is_antialiased_and_keeps_flat_colour_and_dtype():
    parity = (torch.arange(64)[:, None] + torch.arange(64)[None]).remainder(2)
    checker = parity.mul(255).to(torch.uint8).expand(1, 3, 64, 64)
    small = F.resize(checker, 8, 8)
    assert small.dtype == torch.uint8
    assert small.float().sub(127.5).abs().max() < 8  # without antialiasing: 0 or 255
    assert (F.resize(torch.full((2, 3, 31, 17), 93, dtype=torch.uint8), 224, 224) == 93).all()
    assert torch.equal(F.resize(checker, 64, 64), checker)


def test_resize_twice_gives_the_same_bytes_whatever_the_memory_layout():
    frames = noise(3, 3, 60, 80)
    channels_last = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(F.resize(frames, 33, 44), F.resize(frames, 33, 44))
    assert (
        F.resize(frames, 33, 44).int().sub(F.resize(channels_last, 33, 44).int()).abs().max() <= 1
    )


def test_an_unknown_interpolation_is_named():
    with pytest.raises(UserError, match="did you mean 'bilinear'"):
        F.resize(noise(1, 3, 8, 8), 4, 4, "bilinaer")


def test_normalise_by_hand_and_back():
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    clip = F.normalise(frames, (0.5, 0.1, 0.2), (0.25, 0.5, 0.4))
    assert clip.flatten().tolist() == pytest.approx([-2.0, 0.2, 2.0])
    back = F.denormalise(clip, (0.5, 0.1, 0.2), (0.25, 0.5, 0.4))
    assert back.flatten().tolist() == pytest.approx([0, 51, 255], abs=1e-4)


def test_bgr_swaps_the_channels_before_the_mean_is_taken_off():
    frames = noise(2, 3, 4, 4)
    swapped = F.normalise(frames, (0.1, 0.2, 0.3), (1, 2, 3), channel_order="bgr")
    assert torch.equal(swapped, F.normalise(frames.flip(1), (0.1, 0.2, 0.3), (1, 2, 3)))
    back = F.denormalise(swapped, (0.1, 0.2, 0.3), (1, 2, 3), channel_order="bgr")
    torch.testing.assert_close(back, frames.float(), atol=1e-3, rtol=0)


def test_boxes_flip_and_crop_by_hand():
    boxes = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    torch.testing.assert_close(F.flip_boxes(boxes), torch.tensor([[0.6, 0.2, 0.9, 0.8]]))
    # box is x 20..80, y 20..80; window x 40..140, y 20..60
    cut, visible = F.crop_boxes(boxes, (100, 200), (20, 40, 40, 100))
    torch.testing.assert_close(cut, torch.tensor([[0.0, 0.0, 0.4, 1.0]]))
    torch.testing.assert_close(visible, torch.tensor([40 * 40 / (60 * 60)]))


def test_a_box_outside_the_crop_is_not_visible():
    _, visible = F.crop_boxes(torch.tensor([[0.0, 0.0, 0.1, 0.1]]), (100, 100), (50, 50, 50, 50))
    assert visible.tolist() == [0.0]


def test_boxes_follow_the_pixels_through_crop_and_flip():
    frame = torch.zeros(1, 3, 100, 200, dtype=torch.uint8)
    frame[..., 30:60, 50:90] = 255
    boxes = torch.tensor([[50 / 200, 30 / 100, 90 / 200, 60 / 100]])
    cut, _ = F.crop_boxes(boxes, (100, 200), (10, 20, 80, 100))
    pixels = F.crop(frame, 10, 20, 80, 100).flip(-1)[0, 0]
    x1, y1, x2, y2 = (
        (F.flip_boxes(cut)[0] * torch.tensor([100, 80, 100, 80])).round().int().tolist()
    )
    rows, columns = pixels.nonzero().unbind(1)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)


def test_a_large_batch_is_resized_one_by_one_to_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = torch.randint(0, 256, (5, 3, 40, 50), dtype=torch.uint8)
    together = F.resize(frames, 17, 23)
    monkeypatch.setattr(F, "LARGE", 1000)
    assert torch.equal(F.resize(frames, 17, 23), together)
