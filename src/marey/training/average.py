"""Averages of the weights over training, evaluated and saved instead of the last weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from marey.training.config import RunConfig


class WeightAverage:
    """Exponential or stochastic average of the weights, kept beside the model; buffers are those of
    the model."""

    def __init__(self, model: nn.Module, config: RunConfig, total_steps: int) -> None:
        self.config, self.total_steps = config, total_steps
        average = self._decayed if config.average == "ema" else get_swa_avg_fn()
        self.module = AveragedModel(model, avg_fn=average)
        self.module.requires_grad_(False)

    def _decayed(
        self, averaged: torch.Tensor, current: torch.Tensor, count: torch.Tensor
    ) -> torch.Tensor:
        decay = min(self.config.ema_decay, (1 + int(count)) / (10 + int(count)))
        return averaged + (1 - decay) * (current - averaged)

    def update(self, model: nn.Module, step: int, finishes_epoch: bool) -> None:
        """Take in the weights after a step: "ema" every step, "swa" at the end of each epoch of the
        late part."""
        late = step + 1 >= self.config.swa_start * self.total_steps
        if (
            self.config.average == "ema"
            or (finishes_epoch and late)
            or step + 1 == self.total_steps
        ):
            self.module.update_parameters(model)

    def weights_of(self, model: nn.Module) -> nn.Module:
        """Return the module to evaluate and save: the average, once it has begun, else the
        model."""
        return self.module.module if int(self.module.n_averaged) > 0 else model
