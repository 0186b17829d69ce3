"""Stability of one answer: does it survive three mild changes that a camera or a network makes every day?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from marey.corruptions import Corruption, corruption

if TYPE_CHECKING:
    from marey.inference.predictor import Prediction, Predictor

MILD = (corruption("gaussian_noise", 1), corruption("brightness", 1), corruption("jpeg_compression", 1))
"""The changes, with the constants of the `rose` profile."""


def stability(predictor: Predictor, prediction: Prediction, seed: int = 0) -> dict[str, Any]:
    """Predict the sampled frames again under three mild corruptions.

    The frames of every temporal view are changed, so nothing is decoded again.

    Args:
        predictor: what made the prediction.
        prediction: its answer, with the clips it looked at.
        seed: of the noise.

    Returns:
        "kept": share of the corruptions under which the first answer stays, 0 to 1; "lowest_probability": the smallest
        probability the first answer keeps; "corruptions": {kind: {"label", "probability" of the first answer}}.
    """
    place = int(prediction.probabilities.argmax())
    names = predictor.class_names
    if prediction.class_names != names:                                   # ranked by meaning: compare the model's own
        with torch.inference_mode():
            place = int(_probabilities(predictor, prediction, None, seed).argmax())
    answers: dict[str, dict[str, Any]] = {}
    for change in MILD:
        probabilities = _probabilities(predictor, prediction, change, seed)
        answers[change.name] = {"severity": change.severity, "label": names[int(probabilities.argmax())],
                                "probability": round(float(probabilities[place]), 6)}
    kept = [answer["label"] == names[place] for answer in answers.values()]
    return {"kept": round(sum(kept) / len(kept), 4),
            "lowest_probability": min(answer["probability"] for answer in answers.values()),
            "corruptions": answers}


def _probabilities(predictor: Predictor, prediction: Prediction, change: Corruption | None,
                   seed: int) -> torch.Tensor:
    """Return the fused probabilities, (K,), with every view's frames changed by `kind` (None: clean)."""
    views = []
    for clip in prediction.clips:
        frames = clip.frames
        if change is not None:
            frames = change(frames, generator=torch.Generator().manual_seed(seed), fps=clip.fps)
        views.append(predictor.preprocess.clip(frames))
    return predictor.probabilities(predictor.outputs(torch.cat(views))["logits"]).mean(0)
