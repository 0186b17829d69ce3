"""Averages of the weights, by hand."""

from __future__ import annotations

import pytest
from torch import nn

from marey.training.average import WeightAverage
from marey.training.config import RunConfig


def test_the_exponential_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, RunConfig(average="ema", ema_decay=0.5), total_steps=10)
    for step, value in enumerate((1.0, 2.0, 3.0)):
        nn.init.constant_(model.weight, value)
        average.update(model, step, finishes_epoch=False)
    # first copy 1; decays 2/11 and 3/12 while young: 1 + 9/11 (2 - 1), then + 9/12 of the way to 3
    second = 1 + 9 / 11
    assert average.weights_of(model).weight.item() == pytest.approx(second + 0.75 * (3 - second))  # type: ignore[union-attr]


def test_the_late_average_takes_epoch_ends_only() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, RunConfig(average="swa", swa_start=0.5), total_steps=8)
    for step in range(8):
        nn.init.constant_(model.weight, float(step))
        average.update(model, step, finishes_epoch=step % 2 == 1)
        if step < 3:
            assert average.weights_of(model) is model
    assert average.weights_of(model).weight.item() == pytest.approx((3 + 5 + 7) / 3)  # type: ignore[union-attr]
