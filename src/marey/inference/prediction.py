"""The prediction for one video: labels with probabilities, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from marey.errors import UserError
from marey.metrics.trust import set_of
from marey.persons.pose_tracks import PoseTracks
from marey.video.clip import Clip

NO_PERSON = "no person"
"""The only label where a pose model found nobody for long enough."""
UNSEEN = "unknown"
"""The only label where people were found, but in too few moments to see what they do."""


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
    """"probability" of the first answer; "calibrated" (measured out of fold for these classes;
    never for given labels); "agreement" over views; "unknown" with its "reason" and the scores it
    rests on (`marey.metrics.trust.judge`; older checkpoints: "ood_score"); "set", the prediction
    set at 90 % coverage; "not_calibrated" or "damaged", why there is none; "warning" of poor
    pictures (`inference.picture_quality`) or of a video unlike those of training; on request
    "stability".
    With given labels "relative_to_labels" is true, and "none_of_these" says whether an everyday
    action, "nearest_other", fits better than all of them (`inference.none_of_these`)."""
    clips: tuple[Clip, ...] = ()
    """The sampled frames, one clip per temporal view; empty for models of features and poses."""
    persons: tuple[Any, ...] = ()
    """What each person does (`inference.poses.PersonAnswer`), where a pose model answered."""
    poses: PoseTracks | None = None
    """Everyone who was found, where a pose model answered."""
    main_window: tuple[float, float] | None = None
    """Seconds of the window that had most to say, where a pose model answered."""
    calibration: dict[str, Any] | None = None
    """What the model stores about trust, for `set`."""
    scores: dict[str, float] = field(default_factory=dict)
    """Every score that could say "unknown" (`marey.metrics.trust.SCORES`), larger for less known
    videos, means over views; empty where the model has none."""

    @property
    def nobody(self) -> bool:
        """Whether a pose model saw nobody well enough to answer: `NO_PERSON` or `UNSEEN`."""
        return self.class_names in ((NO_PERSON,), (UNSEEN,))

    @property
    def headline(self) -> str:
        """The answer in a few words: the first label, "unknown: ..." with it, or "no person"."""
        label, probability = self.top(1)[0]
        if self.nobody:
            return f"{label}: {self.trust['reason']}"
        if self.trust.get("unknown"):
            reason = self.trust.get("reason") or "unlike the training data"
            return f"unknown: {reason}; nearest: {label} {probability:.0%}"
        return f"{label} {probability:.0%}"

    def __str__(self) -> str:
        """Return one line: the video, its first answers, and a doubt, where there is one."""
        answers = ", ".join(f"{label} {p:.0%}" for label, p in self.top(3))
        doubts = [word for word in ("unknown", "still", "damaged") if self.trust.get(word)]
        return f"{self.video}: {answers}" + (f" ({', '.join(doubts)})" if doubts else "")

    __repr__ = __str__

    def has_set(self, coverage: float = 0.9) -> bool:
        """Return whether a prediction set of this coverage was fitted."""
        return set_of(self.probabilities, self.calibration, coverage) is not None

    def set(self, coverage: float = 0.9) -> list[str]:
        """Return the labels that hold the true one with the stated probability, most probable
        first.

        Holds for videos like those of training (conformal prediction, `marey.metrics.conformal`).

        Args:
            coverage: 0.8, 0.85, 0.9 or 0.95.

        Raises:
            UserError: if the model was not fitted for that coverage.
        """
        inside = set_of(self.probabilities, self.calibration, coverage)
        if inside is None:
            raise UserError(
                f"{self.model}: no prediction sets of coverage {coverage} are stored for these "
                "labels; fit trust with 'marey teach', on at least 40 videos of 5 groups"
            )
        order = self.probabilities.argsort(descending=True).tolist()
        return [self.class_names[number] for number in order if bool(inside[number])]

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
        entry: dict[str, Any] = {
            "video": self.video,
            "headline": self.headline,
            "predictions": predictions,
            "frame_seconds": [round(seconds, 4) for seconds in self.frame_seconds],
            "trust": self.trust,
            "error": None,
        }
        if self.persons:
            entry["persons"] = [person.to_dict(self.class_names, top) for person in self.persons]
        return entry
