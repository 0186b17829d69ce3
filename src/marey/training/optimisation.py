"""Everything of a run whose tensors change: model, optimiser, schedule and weight average."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from marey.training.average import WeightAverage
from marey.training.checkpoint import load_resume, save_resume
from marey.training.config import TrainConfig
from marey.training.distributed import gather, shard
from marey.training.logs import Meter
from marey.training.optim import build_optimizer
from marey.training.plan import Plan
from marey.training.schedule import Schedule
from marey.training.step import StepModule, Stepper, seed_step
from marey.training.task import Batch, Objective


class Optimisation:
    """The steps of a run on the weights of its model.

    Args:
        model: on its device, with what does not train frozen.
        objective: its parameters, if it has any, train along.
        config: of the run.
        plan: the steps of the run.
        accelerator: device, precision and processes.
        meter: counts clips and time.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        config: TrainConfig,
        plan: Plan,
        accelerator: Accelerator,
        meter: Meter,
    ) -> None:
        settings = config.train
        self.model, self.objective, self.plan, self.accelerator = (
            model,
            objective,
            plan,
            accelerator,
        )
        self.seed = settings.seed
        self.sharded = settings.shard and accelerator.num_processes > 1
        if self.sharded:
            self.whole = copy.deepcopy(model)
            shard(model)

        module: nn.Module = StepModule(model, objective).to(accelerator.device)
        optimizer = build_optimizer(model, config.optim, objective)
        self.schedule = Schedule(optimizer, config.optim, plan.total_steps, plan.steps_per_epoch)
        self.average = None
        if settings.average != "none":
            self.average = WeightAverage(model, settings, plan.total_steps)

        if self.sharded:
            self.module, self.optimizer = module, accelerator.prepare(optimizer)
        else:
            self.module, self.optimizer = accelerator.prepare(module, optimizer)
        self.stepper = Stepper(
            self.module, objective, self.optimizer, accelerator, config, meter, sharded=self.sharded
        )

    def one_step(self, step: int, parts: Iterator[Batch], name: str) -> dict[str, float]:
        """Do step number `step`: update weights, learning rates and average.

        Args:
            step: 0-based.
            parts: endless iterator of this process's batches.
            name: of the step, for errors.

        Returns:
            The mean of every loss term, their sum under "loss", and the learning rate under "lr".
        """
        seed_step(self.seed, step, self.accelerator.process_index)
        self.objective.step, self.objective.total_steps = step, self.plan.total_steps
        rate = self.schedule.rate
        terms = self.stepper.one_step(parts, name)
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.model, step, self.plan.finishes_epoch(step))
        return {**terms, "lr": rate}

    def weights(self) -> nn.Module:
        """Return the module to evaluate and save: the average, if any; buffers are the main
        process's."""
        if self.sharded:
            module = gather(self.model, self.whole)
        else:
            module = self.model if self.average is None else self.average.weights_of(self.model)
        if self.accelerator.num_processes > 1:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)
        return module

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Write the resume state.

        Args:
            folder: of the run.
            state: the rest of the run's state, in JSON types.
        """
        own = {
            "schedule": self.schedule.state(),
            "threads": torch.get_num_threads(),
            "processes": self.accelerator.num_processes,
            "total_steps": self.plan.total_steps,
        }
        save_resume(folder, self._modules(), self.optimizer, {**state, **own})

    def restore(self, folder: Path) -> dict[str, Any]:
        """Read the resume state back: weights, optimiser, average, schedule, thread count; returns
        the rest."""
        saved = load_resume(folder, self._modules(), self.optimizer)
        torch.set_num_threads(saved["threads"])
        self.schedule.resume(saved["step"], saved.get("schedule", saved.get("plateau")))
        return saved

    def _modules(self) -> dict[str, nn.Module]:
        """Return the modules whose tensors belong to the resume state."""
        modules = {"step": self.accelerator.unwrap_model(self.module)}
        return modules if self.average is None else {**modules, "average": self.average.module}
