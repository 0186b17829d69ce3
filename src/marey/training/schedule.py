"""The learning rate of every step, by PyTorch's schedulers."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from marey.training.config import OptimConfig

ONE_CYCLE_RISE = 0.3
"""Share of all steps in which "onecycle" rises, where `optim.warmup` is 0."""


class Schedule:
    """What changes the learning rates of an optimiser: its number of steps and, for "plateau", the
    main metric.

    Args:
        optimizer: each group's "lr" is its highest rate, "scale" that rate as a share of
            `optim.lr`.
        total_steps: steps of the whole run.
        steps_per_epoch: need not be whole.
    """

    def __init__(
        self, optimizer: Optimizer, config: OptimConfig, total_steps: int, steps_per_epoch: float
    ) -> None:
        self.optimizer = optimizer
        self.by_step = scheduler_of(optimizer, config, total_steps, steps_per_epoch)
        self.by_metric: ReduceLROnPlateau | None = None
        if config.schedule == "plateau":
            # Any gain counts (threshold 0), and no rate is too small to fall further (eps 0).
            self.by_metric = ReduceLROnPlateau(
                optimizer,
                mode="max",
                factor=config.gamma,
                patience=config.plateau_patience,
                threshold=0.0,
                eps=0.0,
            )

    @property
    def rate(self) -> float:
        """The learning rate of the next step, at scale 1."""
        group = self.optimizer.param_groups[0]
        return group["lr"] / group["scale"]

    def step(self) -> None:
        """Go on to the next step's rates; called after the optimiser's step."""
        self.by_step.step()

    def observe(self, metric: float, higher_is_better: bool) -> None:
        """Tell the "plateau" schedule the main metric of an evaluation."""
        if self.by_metric is not None:
            self.by_metric.step(metric if higher_is_better else -metric)

    def state(self) -> dict[str, Any] | None:
        """Return in JSON types what does not follow from the number of steps; None for all but
        "plateau"."""
        if self.by_metric is None:
            return None
        return {
            "best": self.by_metric.best,
            "bad": self.by_metric.num_bad_epochs,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
        }

    def resume(self, step: int, state: dict[str, Any] | None) -> None:
        """Go to a step of the run; the rates are bit for bit those of a run that did all steps
        before it."""
        with warnings.catch_warnings():
            # The optimiser has made no step in this process, which the scheduler would take for a
            # mistake.
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step")
            for _ in range(step):
                self.by_step.step()
        if self.by_metric is None or state is None:
            return
        if "factor" in state:  # written by a version that kept no rates
            rates = [group["lr"] * state["factor"] for group in self.optimizer.param_groups]
            state = {**state, "rates": rates}
        self.by_metric.best = -math.inf if state["best"] is None else state["best"]
        self.by_metric.num_bad_epochs = state["bad"]
        for group, rate in zip(self.optimizer.param_groups, state["rates"], strict=True):
            group["lr"] = rate


def scheduler_of(
    optimizer: Optimizer, config: OptimConfig, total_steps: int, steps_per_epoch: float
) -> LRScheduler:
    """Build the scheduler of a configuration; the first step of a warm-up is already above
    `warmup_start`."""
    warmup = warmup_steps(config, total_steps)
    if config.schedule == "onecycle":
        return _one_cycle(optimizer, config, total_steps)

    left = max(1, total_steps - warmup)
    body: LRScheduler
    if config.schedule == "cosine":
        body = CosineAnnealingLR(optimizer, left)
    elif config.schedule == "linear":
        body = LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=left)
    elif config.schedule == "step":
        falls = [math.ceil((epoch - 1e-9) * steps_per_epoch) for epoch in config.milestones]
        body = MultiStepLR(optimizer, [max(0, step - warmup) for step in falls], config.gamma)
    else:
        body = ConstantLR(optimizer, factor=1.0)
    if not warmup:
        return body

    # The rate reaches its peak at step number `warmup`; step 0 has the first of warmup + 1 equal
    # rises behind it.
    first = config.warmup_start + (1 - config.warmup_start) / (warmup + 1)
    rise = LinearLR(optimizer, start_factor=first, end_factor=1.0, total_iters=warmup)
    if config.schedule == "plateau":
        return rise
    return SequentialLR(optimizer, [rise, body], [warmup])


def warmup_steps(config: OptimConfig, total_steps: int) -> int:
    """Return the number of warm-up steps: `optim.warmup` is a share of all steps if below 1, else a
    number."""
    return round(config.warmup * total_steps) if config.warmup < 1 else int(config.warmup)


def _one_cycle(optimizer: Optimizer, config: OptimConfig, total_steps: int) -> OneCycleLR:
    """Smith and Topin, "Super-Convergence", 2018: up to the peak and down again by cosine, momentum
    left alone."""
    rise = config.warmup if config.warmup < 1 else config.warmup / total_steps
    # A rise of exactly one step would be divided by its length of 0.
    share = min(1.0, (rise or ONE_CYCLE_RISE) + 1e-12)
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer, peaks, total_steps=total_steps, pct_start=share, cycle_momentum=False
    )
