"""The folder of a run: config.json, the checkpoints best/ and last/, the resume state."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from marey.checkpoints.folder import save_checkpoint
from marey.errors import UserError
from marey.files import read_json, write_json
from marey.training.checkpoint import RESUME_FILE
from marey.training.config import TrainConfig, changed_settings, migrate
from marey.training.task import Task


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


@dataclass(frozen=True)
class RunFolder:
    """Writes the files of a run, except its log and its resume state."""

    path: Path
    config: TrainConfig
    task: Task

    def write_config(self) -> None:
        """Write config.json."""
        write_json(self.path / "config.json", self.config.to_dict())

    def changes(self) -> list[str]:
        """Return "key: old -> new" for every setting that differs from the config.json that is there."""
        before = read_json(self.path / "config.json")
        return changed_settings(migrate(before), self.config.to_dict())

    def save(self, name: str, model: nn.Module, state: RunState, calibration: dict[str, Any] | None = None,
             tensors: dict[str, Tensor] | None = None) -> None:
        """Write a checkpoint folder of the run.

        Args:
            name: "best" or "last".
            model: its weights and architecture.
            state: gives the step and the metrics.
            calibration, tensors: what `calibration.fit_trust` returned.
        """
        task = self.task
        extra = {"task": self.config.objective.task, **task.extra, "config": self.config.to_dict(), "step": state.step,
                 "metrics": state.metrics}
        save_checkpoint(self.path / name, model, class_names=list(task.class_names), preprocess=task.preprocess,
                        calibration=calibration, extra=extra, tensors={**task.tensors, **(tensors or {})})


def has_resume_state(out: Path) -> bool:
    """Return whether a folder holds a run that can go on."""
    return (out / RESUME_FILE).exists()


def require_free(out: Path) -> None:
    """Raise a UserError where a folder holds something."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: already holds a run; go on with it by --resume, or choose another --out")
