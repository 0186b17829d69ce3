"""How many steps a run has, how each is cut into parts, and after which steps to evaluate and to
save."""

from __future__ import annotations

from dataclasses import dataclass

from marey.errors import UserError
from marey.training.config import RunConfig
from marey.training.sampler import finishes_epoch, steps_of_epochs


@dataclass(frozen=True)
class Plan:
    """The steps of a run.

    Args:
        settings: `train` of the configuration.
        num_samples: items of one epoch.
        world: processes that share each step.

    Raises:
        UserError: if a step does not divide into equal parts.
    """

    settings: RunConfig
    num_samples: int
    world: int = 1

    def __post_init__(self) -> None:
        settings, parts = self.settings, self.settings.accumulate * self.world
        if settings.batch_size % parts:
            raise UserError(
                f"train.batch_size={settings.batch_size} does not divide into {parts} equal parts "
                f"(train.accumulate={settings.accumulate} x {self.world} processes); choose a "
                "multiple of it"
            )

    @property
    def part_size(self) -> int:
        """Clips of one forward pass of one process."""
        return self.settings.batch_size // (self.settings.accumulate * self.world)

    @property
    def eval_batch_size(self) -> int:
        """Clips of one forward pass of one process in evaluation."""
        return self.settings.eval_batch_size or self.part_size

    @property
    def steps_per_epoch(self) -> float:
        """Not rounded: a step may hold the end of one epoch and the start of the next."""
        return self.num_samples / self.settings.batch_size

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        settings = self.settings
        return settings.max_steps or steps_of_epochs(
            settings.epochs, self.num_samples, settings.batch_size
        )

    def finishes_epoch(self, step: int) -> bool:
        """Return whether a step uses the last sample of an epoch."""
        return finishes_epoch(step, self.num_samples, self.settings.batch_size)

    def is_evaluation_due(self, step: int) -> bool:
        """Return whether to evaluate after a step."""
        every = self.settings.eval_every
        due = self.finishes_epoch(step) if every is None else (step + 1) % every == 0
        return due or step + 1 == self.total_steps

    def is_save_due(self, step: int) -> bool:
        """Return whether to write the resume state after a step."""
        every = self.settings.save_every
        return self.is_evaluation_due(step) or (every is not None and (step + 1) % every == 0)
