"""The worked examples of the definitions, and the edges."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.metrics import robustness

FIVE = dict(zip(range(1, 6), (0.76, 0.72, 0.64, 0.48, 0.40), strict=True))


def test_schiappas_worked_example() -> None:
    perturbed = robustness.mean_over_severities(FIVE)
    assert perturbed == pytest.approx(0.60)
    assert robustness.absolute_robustness(0.80, perturbed) == pytest.approx(0.80)
    assert robustness.relative_robustness(0.80, perturbed) == pytest.approx(0.75)
    assert robustness.relative_robustness(0.0, 0.0) is None
    assert robustness.absolute_robustness(0.5, 0.6) == pytest.approx(1.1)


def test_mpc_and_rpc_of_the_published_timesformer_row() -> None:
    accuracies = {"fog": {1: 0.714}, "rain": {1: 0.714}}
    assert robustness.mean_performance_under_corruption(accuracies) == pytest.approx(0.714)
    assert robustness.relative_performance_under_corruption(0.822, accuracies) == pytest.approx(
        0.869, abs=5e-4
    )


def test_mpc_averages_severities_first() -> None:
    accuracies = {"a": {1: 1.0, 2: 0.0}, "b": {1: 1.0}}
    assert robustness.mean_performance_under_corruption(accuracies) == pytest.approx(0.75)


def test_corruption_error_by_hand() -> None:
    model, reference = {1: 0.9, 2: 0.7}, {1: 0.8, 2: 0.4}  # errors .4 of .8
    assert robustness.corruption_error(model, reference) == pytest.approx(0.5)
    # added errors: model .4 - 2 * .05 = .3; reference .8 - 2 * .1 = .6
    assert robustness.relative_corruption_error(model, 0.95, reference, 0.9) == pytest.approx(0.5)
    assert (
        robustness.mean_corruption_error(
            {"a": model, "b": reference}, {"a": reference, "b": reference}
        )
        == 0.75
    )
    assert robustness.corruption_error(model, {1: 1.0, 2: 1.0}) is None


def test_a_model_is_its_own_reference_with_one() -> None:
    assert robustness.mean_corruption_error({"a": FIVE}, {"a": FIVE}) == pytest.approx(1)


def test_category_means() -> None:
    means = robustness.category_means(
        {"fog": 0.2, "rain": 0.4, "jumble": 1.0},
        {"fog": "weather", "rain": "weather", "jumble": "temporal"},
    )
    assert means == {"weather": pytest.approx(0.3), "temporal": 1.0}


def test_fooling_counts_only_what_was_right() -> None:
    labels = torch.tensor([0, 1, 2, 0])
    clean = torch.tensor([0, 1, 0, 1])  # two right
    changed = torch.tensor([1, 1, 2, 0])
    assert robustness.fooling_rate(clean, changed, labels) == 0.5
    assert robustness.fooling_rate(torch.tensor([1]), torch.tensor([0]), torch.tensor([0])) is None


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UserError, match="at least one corruption"):
        robustness.mean_performance_under_corruption({})
    with pytest.raises(UserError, match=r"same severities, got \[1\] and \[2\]"):
        robustness.corruption_error({1: 0.5}, {2: 0.5})
