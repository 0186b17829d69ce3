"""The prediction for one video: labels with probabilities, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from marey.video.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The labels and probabilities of one video, and how far to trust them."""

    video: str
    model: str
    class_names: tuple[str, ...]
    probabilities: Tensor
    """(K,); of a classifier of clips they sum to 1. Calibrated only where `trust["calibrated"]`
    says so."""
    frame_seconds: tuple[float, ...]
    """When the frames shown to the model appear, over all views, in seconds, ascending, each time
    once."""
    trust: dict[str, Any] = field(default_factory=dict)
    """"probability" of the first answer, "calibrated" (a temperature was fitted for these classes;
    never for given labels), "agreement" over views, "ood_score", "unknown", on request "stability".
    With given labels the unknown test does not run, and "relative_to_labels" is true."""
    clips: tuple[Clip, ...] = ()
    """The sampled frames, one clip per temporal view; empty for models of features."""

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k most probable labels with their probabilities, most probable first."""
        best = self.probabilities.topk(min(k, len(self.class_names)))
        return [
            (self.class_names[index], float(p))
            for p, index in zip(best.values, best.indices, strict=True)
        ]

    def above(self, threshold: float, top: int | None = None) -> list[tuple[str, float]]:
        """Return the labels above a probability, most probable first, at most `top` (GAT, Table 2:
        0.2 and 3)."""
        return [
            pair
            for pair in self.top(len(self.class_names) if top is None else top)
            if pair[1] > threshold
        ]

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Return the entry of this video in the JSON of `marey predict`."""
        predictions = [{"label": label, "probability": round(p, 6)} for label, p in self.top(top)]
        return {
            "video": self.video,
            "predictions": predictions,
            "frame_seconds": [round(seconds, 4) for seconds in self.frame_seconds],
            "trust": self.trust,
            "error": None,
        }
