"""The folder of a run: config.json, the checkpoints best/ and last/, the resume state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import stored_tensors
from marey.datasets.seen import HASHES, PICTURES, together
from marey.errors import UserError
from marey.files import LOCK, read_json, sweep_partial, write_json, write_text
from marey.metrics.trust_card import run_card
from marey.training.checkpoint import RESUME_FILE
from marey.training.config import TrainConfig, changed_settings
from marey.training.run_state import RunState
from marey.training.task import Task


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
        """Return "key: old -> new" for every setting that differs from the config.json that is
        there."""
        try:
            before = TrainConfig.from_dict(read_json(self.path / "config.json"))
        except UserError:
            self.write_config()
            return ["config.json: missing or damaged -> written again"]
        return changed_settings(before.to_dict(), self.config.to_dict())

    def save(
        self,
        name: str,
        model: nn.Module,
        state: RunState,
        calibration: dict[str, Any] | None = None,
        tensors: dict[str, Tensor] | None = None,
    ) -> None:
        """Write a checkpoint folder of the run.

        Args:
            name: "best" or "last".
            model: its weights and architecture.
            state: gives the step and the metrics.
            calibration, tensors: what `calibration.fit_run` returned.
        """
        task = self.task
        extra = {
            "task": self.config.objective.task,
            **task.extra,
            "config": self.config.to_dict(),
            "step": state.step,
            "metrics": state.metrics,
        }
        save_checkpoint(
            self.path / name,
            model,
            class_names=list(task.class_names),
            preprocess=task.preprocess,
            calibration=calibration,
            extra=extra,
            tensors={**task.tensors, **self.training_videos, **(tensors or {})},
        )

    def write_card(self, name: str, calibration: dict[str, Any]) -> None:
        """Write the card of a checkpoint, README.md, with its table of trust."""
        config, task = self.config, self.task
        facts = {
            "recipe": config.recipe,
            "data": config.data.path,
            "classes": ", ".join(task.class_names),
            "trust fitted on": "the validation videos, which training did not see",
        }
        write_text(
            self.path / name / "README.md", run_card(f"{name} checkpoint", facts, calibration)
        )

    @cached_property
    def training_videos(self) -> dict[str, Tensor]:
        """The tensors by which the training videos are known again, and those of the checkpoint
        that the run starts from (`model.init_from`)."""
        own, start = self.task.describe_training(), self.config.model.init_from
        return own if start is None else together(own, stored_tensors(start, (HASHES, PICTURES)))


def prepare_folder(
    out: Path, resume: bool, accelerator: Accelerator, say: Callable[[str], None]
) -> bool:
    """Make the folder of a run; returns whether it holds a state to resume from.

    Raises:
        UserError: if the folder holds something and `resume` is not asked for.
    """
    if not resume and out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise UserError(
            f"{out}: already holds a run; go on with it by --resume, or choose another --out"
        )
    has_state = (out / RESUME_FILE).exists()
    # no process writes to the folder while another one looks into it
    accelerator.wait_for_everyone()
    if resume and accelerator.is_main_process:  # the lock is held: nobody else is writing
        for folder in (out, out / "best", out / "last"):
            sweep_partial(folder, older_seconds=0.0)
    if resume and not has_state:
        say(f"{out}: nothing to resume, starting fresh")
    out.mkdir(parents=True, exist_ok=True)
    return resume and has_state
