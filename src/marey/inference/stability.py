"""Stability of one answer under three mild changes that a camera or a network makes every day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from marey.corruptions import corruption
from marey.video.clip import Clip

MILD = (
    corruption("gaussian_noise", 1),
    corruption("brightness", 1),
    corruption("jpeg_compression", 1),
)
"""The changes, with the constants of the `rose` profile."""

Probabilities = Callable[[Sequence[Tensor]], Tensor]
"""Frames of every clip, uint8 (T, C, H, W) each -> probabilities over all of them, (K,)."""


def stability(
    clips: Sequence[Clip],
    probabilities: Probabilities,
    class_names: Sequence[str],
    answer: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Answer sampled frames again under three mild corruptions; nothing is decoded again.

    Args:
        clips: the frames of one video, one clip per temporal view.
        probabilities: the model.
        class_names: name of each class.
        answer: class number given for the frames as they are; None asks the model.
        seed: of the noise.

    Returns:
        "kept": share of the corruptions under which the answer stays, 0 to 1; "lowest_probability":
            the smallest
        probability the answer keeps; "corruptions": {kind: {"severity", "label", "probability" of
        the answer}}.
    """
    if answer is None:
        answer = int(probabilities([clip.frames for clip in clips]).argmax())

    answers: dict[str, dict[str, Any]] = {}
    for change in MILD:
        changed = [
            change(clip.frames, generator=torch.Generator().manual_seed(seed), fps=clip.fps)
            for clip in clips
        ]
        found = probabilities(changed)
        answers[change.name] = {
            "severity": change.severity,
            "label": class_names[int(found.argmax())],
            "probability": round(float(found[answer]), 6),
        }

    kept = [entry["label"] == class_names[answer] for entry in answers.values()]
    return {
        "kept": round(sum(kept) / len(kept), 4),
        "lowest_probability": min(entry["probability"] for entry in answers.values()),
        "corruptions": answers,
    }
