"""Steps of a run: how many, how large the parts, what is due after which."""

from __future__ import annotations

import pytest

from marey.errors import UserError
from marey.training.config import RunConfig
from marey.training.plan import Plan


def test_the_steps_of_three_epochs_by_hand() -> None:
    plan = Plan(RunConfig(epochs=3, batch_size=8, accumulate=2), num_samples=30, world=2)
    assert (plan.part_size, plan.eval_batch_size) == (2, 2)
    assert plan.steps_per_epoch == 3.75
    assert plan.total_steps == 12  # 90 / 8 = 11.25
    assert [step for step in range(12) if plan.finishes_epoch(step)] == [3, 7, 11]


def test_a_number_of_steps_wins_over_epochs() -> None:
    assert Plan(RunConfig(epochs=3, max_steps=5, batch_size=8), num_samples=30).total_steps == 5


def test_evaluation_and_saving_are_due_as_set_and_after_the_last_step() -> None:
    plan = Plan(RunConfig(max_steps=10, batch_size=8, eval_every=4, save_every=3), num_samples=1000)
    assert [step + 1 for step in range(10) if plan.is_evaluation_due(step)] == [4, 8, 10]
    assert [step + 1 for step in range(10) if plan.is_save_due(step)] == [3, 4, 6, 8, 9, 10]


def test_a_step_that_does_not_divide_among_the_processes_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"train.batch_size=8 does not divide into 3 equal parts .* x 3 processes"
    ):
        Plan(RunConfig(batch_size=8), num_samples=30, world=3)
