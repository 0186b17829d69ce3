"""Paired tests against exact enumeration and published values."""

from __future__ import annotations

import itertools

import pytest
import torch

from marey.metrics.comparison import compare, mcnemar_exact, paired_difference, sign_flip_p_value


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert mcnemar_exact(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_mcnemar_equals_enumeration_of_all_outcomes() -> None:
    outcomes = list(itertools.product((0, 1), repeat=8))
    extreme = sum(min(sum(o), 8 - sum(o)) <= 1 for o in outcomes) / len(outcomes)
    assert mcnemar_exact(7, 1) == pytest.approx(extreme)


def test_the_paired_interval_is_narrower_than_the_models_apart() -> None:
    a = torch.tensor([True] * 60 + [False] * 40)
    b = a.clone()
    b[90:] = True
    result = paired_difference(a, b)
    assert result["difference"] == pytest.approx(0.10)
    assert 0 < result["low"] < 0.10 < result["high"] < 0.19


def test_swapping_groups_is_exact_for_few_groups() -> None:
    assert sign_flip_p_value(torch.tensor([1.0, 1.0, 1.0])) == pytest.approx(2 / 8)
    assert sign_flip_p_value(torch.tensor([2.0, -2.0])) == 1.0


def test_many_groups_are_drawn_and_agree_with_the_exact_value() -> None:
    gains = torch.tensor([1.0, -1.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0])
    exact = sign_flip_p_value(gains)
    drawn = sign_flip_p_value(torch.cat([gains, torch.zeros(5)]))
    assert drawn == pytest.approx(exact, abs=0.01)


def test_a_comparison_names_gains_per_class() -> None:
    a, b = torch.tensor([True, False, False, True]), torch.tensor([True, True, True, False])
    result = compare(a, b, ["x", "x", "y", "y"])
    assert (result["only_a"], result["only_b"]) == (1, 2)
    assert [row["class"] for row in result["per_class"]] == ["x", "y"]
    assert result["per_class"][0]["gain"] == 0.5
    assert result["group_test_p"] is None


def test_groups_are_used_where_there_are_enough() -> None:
    a, b = torch.zeros(10, dtype=torch.bool), torch.ones(10, dtype=torch.bool)
    result = compare(a, b, ["x"] * 10, groups=[place // 2 for place in range(10)])
    assert result["group_test_p"] == pytest.approx(2 / 32)
    assert result["interval"] == "95% of the paired difference, over groups"
