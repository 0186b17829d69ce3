"""Batch norm statistics measured anew for fixed weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


def recalibrate_batch_statistics(
    model: nn.Module, forward: Callable[[T], Any], batches: Iterable[T]
) -> int:
    """Replace running means and variances by averages over batches, with the weights as they are.

    Running averages lag behind weights that change fast: at momentum 0.01 a network of 150 steps is
    evaluated with statistics of which 22 % are still the initial 0 and 1. Only norms that learn are
    touched: those that `model.train()` puts into training mode.

    Args:
        model: any module; its mode is restored.
        forward: sends one batch through `model`, as in training.
        batches: read only if some norm learns.

    Returns:
        The number of norms measured.

    Raises:
        ValueError: if norms learn and there is no batch.
    """
    was_training = model.training
    model.train()
    learning = [
        part
        for part in model.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
    ]
    if learning:
        momenta = [norm.momentum for norm in learning]
        for norm in learning:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
        seen = 0
        with torch.no_grad():
            for batch in batches:
                forward(batch)
                seen += 1
        for norm, momentum in zip(learning, momenta, strict=True):
            norm.momentum = momentum
        if seen == 0:
            raise ValueError("no batch to measure batch norm statistics on; give at least one")
    model.train(was_training)
    return len(learning)
