"""What a packed copy of a data set costs: in the pictures, and in the answers of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from marey.errors import VideoError
from marey.inference.prediction import Prediction
from marey.transforms.functional import resize
from marey.video.decode import open_video

LOOKED_AT = 8
"""Videos whose pictures are compared."""
ANSWERED = 100
"""Videos that are answered twice."""

Pair = tuple[Path, Path]
"""A video and its copy."""


def picture_cost(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Compare three pictures of some videos with those of their copies at the same moments.

    Returns:
        "psnr_db", the mean peak signal-to-noise ratio in dB of 10 log10(255² / mean square) against
        the video resized to the copy's size (None where nothing could be compared), and "pictures".
    """
    step = max(1, len(pairs) // LOOKED_AT)
    found = []
    for video, copy in pairs[::step][:LOOKED_AT]:
        try:
            with open_video(video, threads=1) as before, open_video(copy, threads=1) as after:
                for share in (1, 3, 5):
                    seconds = after.duration_seconds * share / 6
                    one = before.frames_at_seconds([seconds]).frames.float()
                    other = after.frames_at_seconds([seconds]).frames.float()
                    if one.shape != other.shape:
                        one = resize(one, *other.shape[-2:])
                    error = (one - other).square().mean().clamp(min=1e-3)
                    found.append(float(10 * torch.log10(255**2 / error)))
        except VideoError:
            continue
    mean = sum(found) / len(found) if found else None
    return {"psnr_db": mean, "pictures": len(found)}


def answers_changed(
    predict: Callable[[Path], Prediction],
    pairs: Sequence[Pair],
    tick: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Let a model answer up to `ANSWERED` videos and their copies.

    Returns:
        "videos" that were answered, "changed": how many have another first answer,
        "probability_moved": mean absolute difference of the probability of the first answer to the
        video.
    """
    step = max(1, -(-len(pairs) // ANSWERED))
    changed, moved = 0, []
    chosen = pairs[::step]
    for place, (video, copy) in enumerate(chosen):
        tick("answering", place, len(chosen))
        try:
            before, after = predict(video), predict(copy)
        except VideoError:
            continue
        label, probability = before.top(1)[0]
        changed += after.top(1)[0][0] != label
        moved.append(abs(probability - dict(after.top(len(after.class_names))).get(label, 0.0)))
    mean = sum(moved) / len(moved) if moved else float("nan")
    return {"videos": len(moved), "changed": changed, "probability_moved": mean}
