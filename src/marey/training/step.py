"""One optimiser step: forward and backward of every part, then the update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from marey.errors import UserError
from marey.training.config import TrainConfig
from marey.training.distributed import mean_over_processes, sync_only
from marey.training.logs import Meter
from marey.training.task import Batch, Objective


class StepModule(nn.Module):
    """Model and objective as one module: DDP wraps this, so the objective sees the plain model."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch) -> Any:
        """Return the objective's (outputs, terms)."""
        return self.objective(self.model, batch)


class Stepper:
    """Computes the steps of a run.

    Args:
        module: a `StepModule`, as `Accelerator.prepare` returned it.
        objective: the same objective, which weighs and sums the terms.
        optimizer: as `Accelerator.prepare` returned it.
        accelerator: device, precision and processes.
        config: of the run.
        meter: counts clips, and the time spent waiting for data.
        sharded: the weights are divided over the processes, so precision is set here.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        config: TrainConfig,
        meter: Meter,
        *,
        sharded: bool,
    ) -> None:
        self.module, self.objective, self.optimizer = module, objective, optimizer
        self.accelerator, self.config, self.meter, self.sharded = (
            accelerator,
            config,
            meter,
            sharded,
        )

    def one_step(self, parts: Iterator[Batch], name: str) -> dict[str, float]:
        """Take the next parts, go forward and backward through each, and update the weights once.

        Args:
            parts: endless iterator of this process's batches.
            name: of the step, for the error.

        Returns:
            The mean over the step's clips of every loss term, and of their weighted sum under
            "loss".

        Raises:
            UserError: if the loss is not finite; the weights are then untouched.
        """
        accumulate = self.config.train.accumulate
        sums: dict[str, float] = {}
        self.module.train()
        for part in range(accumulate):
            with self.meter.waiting():
                batch = send_to_device(next(parts), self.accelerator.device)

            with sync_only(self.accelerator, self.module, part == accumulate - 1):
                with self.accelerator.autocast() if self.sharded else nullcontext():
                    _, terms = self.module(batch)
                loss = self.objective.total(terms)
                require_finite(terms, loss, name)
                self.accelerator.backward(loss / accumulate)

            for name, value in {**terms, "loss": loss}.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / accumulate

        if self.config.optim.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.config.optim.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.meter.clips += self.config.train.batch_size
        return mean_over_processes(self.accelerator, sums)


def require_finite(terms: dict[str, Tensor], loss: Tensor, name: str) -> None:
    """Raise a UserError where a loss is not finite, before it reaches the weights."""
    if not torch.isfinite(loss.detach()):
        values = ", ".join(f"{name}={float(term.detach()):g}" for name, term in terms.items())
        raise UserError(
            f"{name}: the loss is not finite ({values}); lower optim.lr, set optim.clip_norm=1, or "
            "check the data with 'marey data check'"
        )


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators for one step of one process, so that no step depends on what ran
    before it."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
