"""Learning rates of whole runs, written as numbers; plateau; resume at any step."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from torch import nn

from marey.training.config import OptimConfig
from marey.training.schedule import Schedule, warmup_steps


def schedule_of(config: OptimConfig, steps: int, per_epoch: float = 1) -> Schedule:
    """A schedule over two groups, the second at half the rate."""
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": config.peak_lr * scale, "scale": scale}
        for scale in (1.0, 0.5)
    ]
    return Schedule(torch.optim.SGD(groups, lr=config.peak_lr), config, steps, per_epoch)


def rates(schedule: Schedule, steps: int) -> list[float]:
    """The rate of each of the next steps, as a training loop sees it."""
    found = []
    for _ in range(steps):
        found.append(schedule.rate)
        schedule.optimizer.step()
        schedule.step()
    return found


# From the closed formulas of the papers and of version 0.1, to ten digits.
RATES = [
    ({"schedule": "constant", "warmup": 2}, 1, [0.3333333333, 0.6666666667, 1, 1, 1]),
    (
        {"schedule": "cosine", "warmup": 3, "warmup_start": 0.1},
        1,
        [0.325, 0.55, 0.775, 1, 0.9330127019, 0.75, 0.5, 0.25, 0.06698729811],
    ),
    ({"schedule": "linear"}, 1, [1, 0.75, 0.5, 0.25]),
    (
        {"schedule": "linear", "warmup": 0.25},
        1,
        [
            0.3333333333,
            0.6666666667,
            1,
            0.8333333333,
            0.6666666667,
            0.5,
            0.3333333333,
            0.1666666667,
        ],
    ),
    (
        {"schedule": "step", "milestones": (2, 3), "gamma": 0.1},
        2,
        [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01],
    ),
    (
        {"schedule": "step", "milestones": (1, 2.5), "gamma": 0.1, "warmup": 2},
        2.5,
        [0.3333333333, 0.6666666667, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01],
    ),
    (
        {"schedule": "onecycle"},
        1,
        [
            0.04,
            0.52,
            1,
            0.950484632,
            0.8117456539,
            0.6112620219,
            0.3887419781,
            0.1882583461,
            0.04951936799,
            4e-6,
        ],
    ),
    (
        {"schedule": "onecycle", "warmup": 0.2},
        1,
        [
            0.04,
            1,
            0.9619399185,
            0.8535539764,
            0.6913429508,
            0.500002,
            0.3086610492,
            0.1464500236,
            0.0380640815,
            4e-6,
        ],
    ),
    (
        {"schedule": "onecycle", "warmup": 0.1},
        1,
        [
            0.04,
            0.969846431,
            0.8830226895,
            0.750001,
            0.5868257415,
            0.4131782585,
            0.250003,
            0.1169813105,
            0.03015756899,
            4e-6,
        ],
    ),
]


@pytest.mark.parametrize(("settings", "per_epoch", "expected"), RATES)
def test_the_rates_of_a_run(settings: dict, per_epoch: float, expected: list[float]) -> None:
    schedule = schedule_of(OptimConfig(lr=0.5, **settings), len(expected), per_epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rates(schedule, len(expected))
    assert found == pytest.approx([0.5 * share for share in expected], rel=1e-9)


@pytest.mark.parametrize("settings", [settings for settings, _, _ in RATES])
def test_all_groups_follow_one_schedule(settings: dict) -> None:
    schedule = schedule_of(OptimConfig(lr=0.5, **settings), 10, 2)
    for _ in range(10):
        first, second = (group["lr"] for group in schedule.optimizer.param_groups)
        assert second == pytest.approx(first / 2, rel=1e-12)
        rates(schedule, 1)


@pytest.mark.parametrize(
    ("schedule", "steps"), [("onecycle", 1), ("onecycle", 2), ("cosine", 1), ("linear", 1)]
)
def test_the_shortest_runs_have_rates(schedule: str, steps: int) -> None:
    assert all(
        rate >= 0
        for rate in rates(schedule_of(OptimConfig(lr=0.5, schedule=schedule), steps), steps)
    )  # type: ignore[arg-type]


def test_a_warm_up_below_one_is_a_share_of_all_steps() -> None:
    assert warmup_steps(OptimConfig(warmup=0.1), 200) == 20
    assert warmup_steps(OptimConfig(warmup=15), 200) == 15


def test_plateau_follows_the_metric() -> None:
    schedule = schedule_of(
        OptimConfig(lr=1.0, schedule="plateau", gamma=0.5, plateau_patience=1), 100
    )
    seen = []
    for metric in (0.5, 0.4, 0.5, 0.6, 0.1, 0.1, 0.1, 0.1):
        schedule.observe(metric, higher_is_better=True)
        seen += rates(schedule, 1)
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_plateau_knows_metrics_that_fall() -> None:
    schedule = schedule_of(
        OptimConfig(lr=1.0, schedule="plateau", gamma=0.5, plateau_patience=0), 100
    )
    for metric in (0.5, 0.4, 0.3):
        schedule.observe(metric, higher_is_better=False)
    assert schedule.rate == 1


def test_other_schedules_do_not_look_at_the_metric() -> None:
    schedule = schedule_of(OptimConfig(lr=1.0, schedule="constant"), 100)
    for metric in (0.5, 0.4, 0.3, 0.2, 0.1, 0.0):
        schedule.observe(metric, higher_is_better=True)
    assert schedule.rate == 1
    assert schedule.state() is None


def test_a_resumed_schedule_goes_on_with_the_same_bits() -> None:
    for settings, per_epoch, expected in RATES:
        whole, resumed = (
            schedule_of(OptimConfig(lr=0.5, **settings), len(expected), per_epoch) for _ in range(2)
        )
        rates(whole, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            resumed.resume(3, None)
        assert rates(resumed, len(expected) - 3) == rates(whole, len(expected) - 3)


def test_a_resumed_plateau_remembers_what_it_saw() -> None:
    config = OptimConfig(lr=0.3, schedule="plateau", gamma=0.1, plateau_patience=1, warmup=2)
    whole, resumed = (schedule_of(config, 100) for _ in range(2))
    for metric in (0.5, 0.4, 0.4, 0.4):
        rates(whole, 1)
        whole.observe(metric, higher_is_better=True)
    resumed.resume(4, json.loads(json.dumps(whole.state())))
    for metric in (0.4, 0.4, 0.6, 0.4):
        for schedule in (whole, resumed):
            schedule.observe(metric, higher_is_better=True)
        assert rates(resumed, 1) == rates(whole, 1)
    assert whole.rate == pytest.approx(0.3 * 0.01)


def test_the_plateau_of_a_run_begun_by_an_older_version_is_read() -> None:
    schedule = schedule_of(
        OptimConfig(lr=1.0, schedule="plateau", gamma=0.5, plateau_patience=0), 100
    )
    schedule.resume(7, {"factor": 0.25, "best": 0.5, "bad": 0})
    assert schedule.rate == 0.25
    schedule.observe(0.4, higher_is_better=True)
    assert schedule.rate == 0.125
