"""Forwards or backwards: the direction in which the people of a window are played.

Legend: W windows of all people at the same T moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError
from marey.inference.pose_windows import PoseClips
from marey.models.arrow_of_time import ArrowOfTime

TOLD_FROM = 0.75
"""Probability from which a direction is told by a checkpoint that names no limit of its own."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How the moments were played, as they were given."""

    forwards: float
    """Probability that they were played forwards."""
    told_from: float
    """Probability of either direction from which it is told."""

    @property
    def probability(self) -> float:
        """Probability of the more probable direction."""
        return max(self.forwards, 1 - self.forwards)

    @property
    def told(self) -> bool:
        """Whether the probability reaches the limit; else "cannot tell"."""
        return self.probability >= self.told_from

    def reversed(self) -> Direction:
        """Return the direction of the same moments in reversed order."""
        return Direction(forwards=1 - self.forwards, told_from=self.told_from)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry "direction" in the JSON of `marey order`."""
        return {
            "forwards": round(self.forwards, 6),
            "told": self.told,
            "told_from": round(self.told_from, 4),
        }


def check_direction_model(checkpoint: Checkpoint) -> None:
    """Raise a UserError if a checkpoint tells no direction."""
    if not isinstance(checkpoint.model, ArrowOfTime):
        raise UserError(
            f"{checkpoint.source}: a {checkpoint.name}, which tells no direction of time; give "
            "marey-arrow, or a run of `marey train arrow_tune`"
        )


def direction_of(checkpoint: Checkpoint, clips: PoseClips) -> Direction:
    """Return the direction of the people of a window, the log odds of each by what they have to
    say.

    Args:
        checkpoint: of an `ArrowOfTime`; its temperature applies, and its `extra["told_from"]`.
        clips: of one or more people, moments in the order asked about.
    """
    told_from = float(checkpoint.extra.get("told_from", TOLD_FROM))
    odds = fused_log_odds(log_odds(checkpoint, clips.clips), clips.weight)
    forwards = torch.sigmoid(odds / checkpoint.temperature)
    return Direction(forwards=float(forwards), told_from=told_from)


@torch.inference_mode()
def log_odds(checkpoint: Checkpoint, clips: Tensor) -> Tensor:
    """Return the log odds of "forwards" (W,) of windows (W, T, 17, 3), before the temperature."""
    logits = checkpoint.model.eval()(clips)["logits"]
    return logits[:, 0] - logits[:, 1]


def fused_log_odds(odds: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of log odds (W,): people of one window see the same direction, but
    are no independent witnesses; a scalar, 0 without a window."""
    return (odds * weight).sum() / weight.sum().clamp_min(1e-9)
