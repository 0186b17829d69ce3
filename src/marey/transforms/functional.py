"""Pure functions on clips (T, C, H, W) and their boxes: resize, crop, flip, normalise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from marey.errors import UserError, unknown_name

INTERPOLATIONS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


LARGE = 1 << 24
"""Numbers; larger batches are resized one by one, with the same result."""


def resize(frames: Tensor, height: int, width: int, interpolation: str = "bilinear") -> Tensor:
    """Resize to (height, width) with antialiasing, keeping the dtype; the same size comes back
    untouched.

    Raises:
        UserError: if `interpolation` is not bilinear, bicubic or nearest.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown_name("interpolation", interpolation, INTERPOLATIONS)
    if frames.shape[-2:] == (height, width):
        return frames
    if frames.ndim > 3 and frames.numel() > LARGE:  # the work is done in float32
        return torch.stack([resize(part, height, width, interpolation) for part in frames])
    return tv.resize(
        frames, [height, width], interpolation=INTERPOLATIONS[interpolation], antialias=True
    )


def window_of(
    height: int, width: int, short_side: int, size: int, at: float
) -> tuple[int, int, int, int]:
    """Return the window (top, left, height, width) of a very long picture that becomes a crop.

    Resizing only the window gives the crop without the resized whole, which for a picture of
    224 x 64000 would be larger than the picture itself.

    Args:
        height, width: of the picture, in pixels.
        short_side, size: of `resize_short_side` and of the crop, in pixels.
        at: place of the crop along the longer side: 0 start, 0.5 centre, 1 end.
    """
    side = max(1, round(min(height, width) * size / short_side))
    along = round((max(height, width) - side) * at)
    across = (min(height, width) - side) // 2
    top, left = (along, across) if height > width else (across, along)
    return top, left, side, side


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size with the short side at `short_side`, the long one floor(long / short * short_side), as
    SlowFast does."""
    if min(height, width) == short_side:  # rounding must not take a pixel off the longer side
        return height, width
    if height <= width:
        return short_side, max(short_side, math.floor(width / height * short_side))
    return max(short_side, math.floor(height / width * short_side)), short_side


def resize_short_side(frames: Tensor, short_side: int, interpolation: str = "bilinear") -> Tensor:
    """Resize so that the shorter of height and width is `short_side` pixels, the shape kept."""
    height, width = frames.shape[-2:]
    return resize(frames, *short_side_size(height, width, short_side), interpolation)


def crop_offsets(height: int, width: int, size: int, num_crops: int) -> list[tuple[int, int]]:
    """Top-left corners (top, left) of the official test crops.

    Offsets are ceil((side - size) / 2). One crop: the centre. Three: along the longer side the
    start, the centre and the end (left/top, centre, right/bottom); the other axis stays centred. A
    square is cut along its width.

    Raises:
        UserError: if the frame is smaller than the crop, or `num_crops` is not 1 or 3.
    """
    if height < size or width < size:
        raise UserError(
            f"a crop of {size} needs frames at least that large, got {height} x {width}; "
            f"resize the short side to {size} or more first"
        )
    if num_crops not in (1, 3):
        raise UserError(f"there are 1 or 3 spatial crops, got {num_crops}")
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if num_crops == 1:
        return [(top, left)]
    if height > width:
        return [(0, left), (top, left), (height - size, left)]
    return [(top, 0), (top, left), (top, width - size)]


def crop(frames: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Cut the window [top, top + height) x [left, left + width) out of every frame."""
    return frames[..., top : top + height, left : left + width]


def normalise(
    frames: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    rescale: float = 1 / 255,
    channel_order: str = "rgb",
) -> Tensor:
    """Make float32 model input: (frames * rescale - mean) / std per channel; `bgr` swaps the
    channels first.

    Args:
        frames: uint8 in [0, 255] (or float in the same units), (..., 3, H, W), RGB.
        mean, std: three numbers each, in the units after `rescale`, in the order of the channels of
            the output.
    """
    if channel_order not in ("rgb", "bgr"):
        raise unknown_name("channel order", channel_order, ("rgb", "bgr"))
    clip = frames.to(torch.float32)
    if channel_order == "bgr":
        clip = clip.flip(-3)
    # (x * rescale - mean) / std as one product and one sum: x * (rescale / std) + (-mean / std).
    scale = torch.tensor([rescale / s for s in std], dtype=torch.float32, device=clip.device).view(
        -1, 1, 1
    )
    shift = torch.tensor(
        [-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32, device=clip.device
    ).view(-1, 1, 1)
    return clip * scale + shift


def denormalise(
    clip: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    rescale: float = 1 / 255,
    channel_order: str = "rgb",
) -> Tensor:
    """Undo `normalise`: float in pixel units [0, 255], RGB (not rounded, not cut)."""
    scale = torch.tensor(std, dtype=clip.dtype, device=clip.device).view(-1, 1, 1)
    shift = torch.tensor(mean, dtype=clip.dtype, device=clip.device).view(-1, 1, 1)
    frames = (clip * scale + shift) / rescale
    return frames.flip(-3) if channel_order == "bgr" else frames


def flip_boxes(boxes_xyxy_norm: Tensor) -> Tensor:
    """Mirror boxes left to right: x1, x2 become 1 - x2, 1 - x1. (..., 4), in [0, 1] of the
    frame."""
    x1, y1, x2, y2 = boxes_xyxy_norm.unbind(-1)
    return torch.stack([1 - x2, y1, 1 - x1, y2], dim=-1)


def crop_boxes(
    boxes_xyxy_norm: Tensor, frame_size: tuple[int, int], window: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor]:
    """Express boxes in the coordinates of a crop, cut at its border.

    Args:
        boxes_xyxy_norm: (P, 4), in [0, 1] of the frame.
        frame_size: (height, width) of the frame in pixels.
        window: (top, left, height, width) of the crop in pixels.

    Returns:
        Boxes (P, 4) in [0, 1] of the crop, and the visible part of each one's area (P,) in [0, 1]:
        0 is outside.
    """
    (H, W), (top, left, height, width) = frame_size, window
    to_crop = boxes_xyxy_norm.new_tensor([W / width, H / height] * 2)
    moved = boxes_xyxy_norm * to_crop - boxes_xyxy_norm.new_tensor([left / width, top / height] * 2)
    cut = moved.clamp(0, 1)
    area = (moved[..., 2:] - moved[..., :2]).clamp(min=0).prod(-1)
    visible = (cut[..., 2:] - cut[..., :2]).clamp(min=0).prod(-1) / area.clamp(min=1e-12)
    return cut, visible
