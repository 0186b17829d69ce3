"""Evaluation during training: the task's evaluator over its validation data, and which evaluation
is the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import nn

from marey.errors import UserError
from marey.training.batches import loader_of
from marey.training.task import Evaluator, Task


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    accelerator: Accelerator,
    *,
    batch_size: int,
    workers: int = 0,
    unreadable: Callable[[int, str], None] = lambda sample, reason: None,
) -> Evaluator:
    """Run the task's evaluator over its validation data, shared among the processes; every process
    gets all rows.

    Args:
        unreadable: called with sample number and reason for every item that cannot be read; it is
            left out.

    Raises:
        UserError: if the task has no validation data.
    """
    data = task.val_data
    if data is None:
        raise UserError("this task has no validation data to evaluate on")
    evaluator = task.make_evaluator()
    mine = [
        (0, sample)
        for sample in range(accelerator.process_index, len(data), accelerator.num_processes)
    ]
    model.eval()
    for batch in loader_of(data, mine, task, batch_size=batch_size, workers=workers):
        for sample, reason in batch.pop("unreadable", ()) if isinstance(batch, dict) else ():
            unreadable(sample, reason)
        if isinstance(batch, dict) and not batch:
            continue
        batch = send_to_device(batch, accelerator.device)
        with accelerator.autocast():
            outputs, _ = task.objective(model, batch)
        evaluator.update(outputs, batch)
    evaluator.merge(gather_object([evaluator.state()]))
    return evaluator


def is_better(
    metrics: dict[str, float],
    best: dict[str, float],
    main: str,
    higher_is_better: bool,
    *,
    select: str = "metric",
) -> bool:
    """Return whether an evaluation beats the best so far; NaN never does.

    Args:
        metrics: of the evaluation.
        best: metrics of the best evaluation so far; empty if there is none.
        main: key of the main metric.
        higher_is_better: whether a higher main metric is better.
        select: "metric" (at a tie, "loss"), "loss" where the evaluator gives one, or "last":
            always.
    """
    if select == "loss" and "loss" in metrics:
        main, higher_is_better = "loss", False
    value = metrics[main]
    if math.isnan(value) or not best or select == "last":
        return not math.isnan(value)
    if value == best[main]:
        return metrics.get("loss", 0.0) < best.get("loss", 0.0)
    return value > best[main] if higher_is_better else value < best[main]


def numbers_of(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the plain numbers among an evaluator's metrics."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
