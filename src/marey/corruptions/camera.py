"""Camera corruptions: a fixed rotation, a random rotation per frame, a shifted view.

Rotation takes the nearest pixel and fills with black, bit for bit what Pillow's `rotate` does on a
frame.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from marey.corruptions.pixels import side_scale, uniform_int


def rotate_nearest(frames: Tensor, degrees: float) -> Tensor:
    """Rotate every frame counter-clockwise about its centre, same size, nearest pixel, black
    outside.

    Pillow's fixed-point loop, with its 16 fractional bits, written as index arithmetic.
    """
    H, W = frames.shape[-2:]
    angle = degrees % 360.0
    if angle == 0:
        return frames.clone()
    if angle == 180 or (angle in (90, 270) and H == W):
        return torch.rot90(frames, int(angle // 90), dims=(-2, -1)).contiguous()

    # Output pixel (x, y) shows input (a x + b y + c, d x + e y + f); the centre stays where it is.
    radians = -math.radians(angle)
    a, b = round(math.cos(radians), 15), round(math.sin(radians), 15)
    d, e = round(-math.sin(radians), 15), round(math.cos(radians), 15)
    c = a * (-W / 2) + b * (-H / 2) + W / 2
    f = d * (-W / 2) + e * (-H / 2) + H / 2

    def fixed(value: float) -> int:
        return math.floor(value * 65_536 + 0.5)

    x = torch.arange(W, device=frames.device)
    y = torch.arange(H, device=frames.device)[:, None]
    source_x = (fixed(c + a / 2 + b / 2) + y * fixed(b) + x * fixed(a)) >> 16
    source_y = (fixed(f + d / 2 + e / 2) + y * fixed(e) + x * fixed(d)) >> 16

    inside = (source_x >= 0) & (source_x < W) & (source_y >= 0) & (source_y < H)
    index = source_y.clamp(0, H - 1) * W + source_x.clamp(0, W - 1)
    return frames.flatten(2).index_select(2, index.flatten()).view(frames.shape) * inside


def static_rotate(frames: Tensor, *, degrees: float) -> Tensor:
    """Rotate every frame by the same angle."""
    return rotate_nearest(frames, degrees)


def random_rotate(frames: Tensor, *, max_degrees: int, generator: Generator) -> Tensor:
    """Rotate each frame by its own whole number of degrees from [-max_degrees, max_degrees]."""
    angles = uniform_int(-max_degrees, max_degrees, len(frames), generator)
    return torch.cat(
        [rotate_nearest(frame[None], angle) for frame, angle in zip(frames, angles, strict=True)]
    )


def translate(frames: Tensor, *, max_shift: int, generator: Generator) -> Tensor:
    """Move the view right and down by one shift per clip, black beyond the frame.

    The source crops 224 from 256 at an origin drawn from [0, max_shift - 1] on each axis. Ours
    keeps the size and shows input (y + dy, x + dx) at (y, x); its clean clip is the origin, so a
    greater severity is a greater shift.
    """
    H, W = frames.shape[-2:]
    dy, dx = (
        min(side - 1, round(shift * side_scale(frames)))
        for shift, side in zip(uniform_int(0, max_shift - 1, 2, generator), (H, W), strict=True)
    )
    moved = torch.zeros_like(frames)
    moved[..., : H - dy, : W - dx] = frames[..., dy:, dx:]
    return moved
