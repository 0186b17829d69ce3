"""Extension of videos too short for their sampler, as the TimeSformer study on HMDB_simp does it.

Kaur, "Action Recognition Using Vision Transformers", section 3 and Table 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marey.errors import UserError

BRIGHTNESS_FACTORS = (0.6, 0.8, 1.2, 1.4)
"""Factors of the brightness step, in the study's order."""
MAX_ROUNDS = 5
"""Times the three steps are gone through before giving up (the released notebook's limit)."""


def interpolate_frames(frames: Tensor) -> Tensor:
    """Put the pixel average of each two neighbours between them: L frames become 2 L - 1.

    Args:
        frames: uint8, (L, C, H, W). The average is rounded down, so 255 and 254 give 254.
    """
    between = ((frames[:-1].to(torch.int16) + frames[1:].to(torch.int16)) // 2).to(frames.dtype)
    longer = frames.new_empty((max(2 * len(frames) - 1, 0), *frames.shape[1:]))
    longer[0::2] = frames
    longer[1::2] = between
    return longer


def brighten_frames(frames: Tensor, factor: float) -> Tensor:
    """Multiply uint8 frames by `factor`, rounded and cut to [0, 255]."""
    return (frames.float() * factor).round_().clamp_(0, 255).to(frames.dtype)


def extend_frames(frames: Tensor, length: int) -> Tensor:
    """Extend a video to `length` frames: interpolation, then reversal, then brightness, until the
    length is met.

    Kaur, "Action Recognition Using Vision Transformers", section 3. One round: put averages between
    neighbours; append the frames in reverse; append a copy at brightness 0.6, 0.8, 1.2 and 1.4. It
    stops as soon as there are enough, cuts to exactly `length`, and goes round again
    (at most five times) where one round is not enough.

    Args:
        frames: uint8, (L, C, H, W), L >= 1.
        length: frames wanted; a video that already has as many comes back as it is.

    Raises:
        UserError: if there is no frame, or five rounds do not reach `length`.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or len(frames) == 0:
        raise UserError(
            f"extension needs uint8 frames (L, C, H, W) with L >= 1, got {frames.dtype} "
            f"{tuple(frames.shape)}"
        )
    if len(frames) >= length:
        return frames
    for _ in range(MAX_ROUNDS):
        frames = interpolate_frames(frames)
        if len(frames) < length:
            frames = torch.cat([frames, frames.flip(0)])[:length]
        existing = frames
        for factor in BRIGHTNESS_FACTORS:
            if len(frames) < length:
                frames = torch.cat(
                    [frames, brighten_frames(existing[: length - len(frames)], factor)]
                )
        if len(frames) >= length:
            return frames[:length]
    raise UserError(
        f"{MAX_ROUNDS} rounds of extension give {len(frames)} frames, {length} were asked; ask "
        "for fewer"
    )
