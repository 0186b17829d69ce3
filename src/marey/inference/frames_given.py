"""Frames that are given in memory instead of a file: tensors, arrays, clips, and lists of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.errors import UserError
from marey.inference.prediction import Prediction
from marey.video.clip import Clip

GIVEN_FPS = 25.0
"""Frames per second of a tensor or array, which does not say it; a `Clip` does."""


def clips_of(video: Any) -> list[Clip] | None:
    """Return the clips of a tensor, array or `Clip`; None where `video` is none of them.

    Args:
        video: uint8 RGB, (T, 3, H, W), (T, H, W, 3), or a batch of either; or a clip.

    Raises:
        UserError: if a tensor or array has another type or shape.
    """
    if isinstance(video, Clip):
        return [video]
    if not isinstance(video, (Tensor, np.ndarray)):
        return None
    frames = torch.as_tensor(video)
    if frames.ndim == 5:
        return [clip_of(part) for part in frames]
    return [clip_of(frames)]


def answers_to(
    given: Any, of_clip: Callable[[Clip], Prediction], of_any: Callable[[Any], Any]
) -> Prediction | list[Prediction]:
    """Answer what is given instead of one file.

    Args:
        given: a list of files, frames and clips, or what `clips_of` takes.
        of_clip: answers one clip.
        of_any: answers one member of a list, or several, as a list.

    Returns:
        One answer, or a list for a list and for a batch.

    Raises:
        UserError: if it is something else.
    """
    if isinstance(given, (list, tuple)):
        found = [of_any(part) for part in given]
        return [one for part in found for one in (part if isinstance(part, list) else [part])]
    clips = clips_of(given)
    if clips is None:
        raise UserError(
            f"expected a file, frames (uint8 tensor or array), a Clip or a list of them, got "
            f"{type(given).__name__}"
        )
    answers = [of_clip(clip) for clip in clips]
    return answers if getattr(given, "ndim", 4) == 5 else answers[0]


def clip_of(frames: Tensor) -> Clip:
    """Return frames in memory as a clip of `GIVEN_FPS`.

    Raises:
        UserError: if they are not uint8 (T, 3, H, W) or (T, H, W, 3).
    """
    if frames.ndim == 4 and frames.shape[1] != 3 and frames.shape[-1] == 3:
        frames = frames.permute(0, 3, 1, 2)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
        raise UserError(
            f"frames in memory are uint8 RGB, (T, 3, H, W) or (T, H, W, 3), got {frames.dtype} "
            f"{tuple(frames.shape)}; for a normalised clip call the model itself"
        )
    count = len(frames)
    return Clip(
        frames=frames,
        frame_indices=tuple(range(count)),
        frame_seconds=tuple(index / GIVEN_FPS for index in range(count)),
        fps=GIVEN_FPS,
        path="frames in memory",
    )
