"""What changes while a run goes on, and what is left of it at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class RunState:
    """What changes while a run goes on, besides tensors; JSON types, saved for resume."""

    step: int = 0
    best: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class TrainResult:
    """What a finished run hands back."""

    out: Path
    """The run's folder: best/, last/, config.json, log.jsonl."""
    steps: int
    best: float | None
    """Best main metric on the validation data; None without validation data."""
    best_step: int
    metrics: dict[str, float]
    """All metrics of the best evaluation."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Videos of the training data that could not be read, with the reason."""
    stopped_early: bool = False
    seconds: float = 0.0
    is_main: bool = True
    """False in all but one of several processes."""

    def to_dict(self) -> dict[str, Any]:
        """Return the result in JSON types."""
        return {
            **{key: value for key, value in vars(self).items() if key != "is_main"},
            "out": str(self.out),
        }
