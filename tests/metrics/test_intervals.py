"""Intervals: values worked by hand, the rules for few groups, and coverage by simulation."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.intervals import coverage
from marey.metrics.intervals import (
    difference_interval,
    enough_groups,
    interval_unit,
    proportion_interval,
    ratio_interval,
    t_quantile,
)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (29, 2.0452), (1000, 1.9623)]
)
def test_quantiles_of_students_t_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-5)


def test_ten_of_ten_do_not_give_certainty() -> None:
    low, high = proportion_interval(torch.ones(10))  # Wilson: 10 / (10 + 1.96^2)
    assert (low, high) == pytest.approx((10 / (10 + 1.959964**2), 1.0))


def test_the_interval_without_groups_is_wilsons() -> None:
    # 8 of 10: (0.8 + 0.19207) / 1.38415 -+ 0.22678, Brown, Cai and DasGupta, 2001, Eq. 4.
    low, high = proportion_interval(torch.tensor([1.0] * 8 + [0.0] * 2))
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_groups_that_agree_widen_the_interval() -> None:
    values = torch.tensor([1.0] * 50 + [0.0] * 50)
    groups = [row // 10 for row in range(100)]
    alone, grouped = proportion_interval(values), proportion_interval(values, groups)
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])


def test_groups_that_do_not_matter_hardly_move_the_interval() -> None:
    values = (torch.rand(3000, generator=torch.Generator().manual_seed(0)) < 0.7).double()
    alone = proportion_interval(values)
    grouped = proportion_interval(values, [row % 300 for row in range(3000)])
    assert grouped == pytest.approx(alone, abs=0.004)


def test_equal_groups_count_as_one_observation_each() -> None:
    # No error in 6 groups: 6 of 6 answers, however many videos a group has; Clopper and Pearson.
    for size in (4, 7):
        groups = [row // size for row in range(6 * size)]
        right = proportion_interval(torch.ones(6 * size), groups)
        assert right == pytest.approx((0.025 ** (1 / 6), 1.0))
        wrong = proportion_interval(torch.zeros(6 * size), groups)
        assert wrong == pytest.approx((0.0, 1 - 0.025 ** (1 / 6)))


@pytest.mark.parametrize("wrong", [0, 3])
def test_groups_of_one_video_are_no_groups(wrong: int) -> None:
    values = torch.tensor([0.0] * wrong + [1.0] * (74 - wrong))
    alone = proportion_interval(values, [f"video {row}" for row in range(74)])
    assert alone == pytest.approx(proportion_interval(values))
    assert alone[0] > 0.88


def test_groups_that_are_right_or_wrong_as_a_whole_are_covered() -> None:
    # The worst case, where a group is one answer: all 9 right is covered while its chance is 2.5%.
    low, _ = proportion_interval(torch.ones(72), [row % 9 for row in range(72)])
    assert low**9 == pytest.approx(0.025)


def test_weights_repeat_a_video() -> None:
    values, weights = torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])
    low, high = proportion_interval(values, weights=weights)
    assert low < 0.75 < high
    assert high - low > 0.6  # Kish: 1.6 videos, not 4


def test_no_difference_gives_the_rule_of_three() -> None:
    low, high = difference_interval(torch.zeros(300))
    assert (low, high) == pytest.approx((-0.0092, 0.0092), abs=1e-4)
    assert difference_interval(torch.zeros(30), list(range(5)) * 6)[1] > 0.4


def test_no_true_difference_is_rarely_called_one() -> None:
    generator = torch.Generator().manual_seed(0)
    excluded = 0
    for _ in range(400):
        shift = torch.randint(-1, 2, (10, 1), generator=generator).expand(-1, 6)
        gains = shift * torch.randint(2, (10, 6), generator=generator)
        low, high = difference_interval(gains.flatten(), [row // 6 for row in range(60)])
        excluded += not low <= 0 <= high
    assert excluded / 400 <= 0.07


def test_a_ratio_of_equal_things_is_one() -> None:
    values = (torch.rand(200, generator=torch.Generator().manual_seed(0)) < 0.7).double()
    low, high = ratio_interval(values, values)
    assert low < 1 < high
    assert high - low < 0.05
    assert ratio_interval(values / 2, values)[1] < 0.6
    assert all(math.isnan(end) for end in ratio_interval(values, torch.zeros(200)))


def test_too_few_groups_are_said() -> None:
    values = torch.tensor([1.0] * 50 + [0.0] * 50)
    assert proportion_interval(values, ["one"] * 100) == proportion_interval(values)
    assert proportion_interval(values, [None] * 100) == proportion_interval(values)
    assert "too few groups (3, at least 5" in interval_unit(["a", "b", "c", "c"])
    assert interval_unit(None) == interval_unit([None, "a"]) == "videos"
    assert interval_unit(list("abcde")) == "groups"
    assert not enough_groups(list("abcd"))


def test_no_values_give_no_interval() -> None:
    assert all(math.isnan(end) for end in proportion_interval(torch.zeros(0)))
    assert all(math.isnan(end) for end in difference_interval(torch.zeros(0)))


@pytest.mark.parametrize("num_groups", [5, 10, 30])
def test_the_interval_keeps_its_coverage_with_few_groups(num_groups: int) -> None:
    """93-97 % at accuracy 0.7, at least 93 % at 0.95; 1500 draws have a standard error of 0.6 %."""
    typical = coverage(0.7, num_groups, 20, 1500, others=False)["coverage"]["marey"]
    assert 0.93 <= typical <= 0.97
    high = coverage(0.95, num_groups, 20, 1500, others=False)["coverage"]["marey"]
    assert high >= 0.93


def test_the_percentile_bootstrap_does_not_keep_its_coverage() -> None:
    found = coverage(0.7, 5, 20, 300)["coverage"]
    assert found["percentile bootstrap"] < 0.90
