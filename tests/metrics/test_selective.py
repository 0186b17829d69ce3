"""AUROC, FPR at 95 % TPR, risk-coverage: values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from marey.errors import UserError
from marey.metrics.selective import (
    aurc,
    auroc,
    coverage_at_accuracy,
    fpr_at_tpr,
    rejection_of,
    rejection_threshold,
    risk_coverage,
)


def test_auroc_by_hand() -> None:
    # Pairs (known, unknown): 3 > 1, 3 > 2, 2 > 1 count 1, 2 = 2 counts a half: 3.5 of 4.
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])) == 3.5 / 4
    assert math.isnan(auroc(torch.zeros(0), torch.ones(2)))


def test_auroc_without_signal_is_a_half() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3000, generator=generator)
    assert auroc(scores[0], scores[1]) == pytest.approx(0.5, abs=0.02)
    assert auroc(torch.ones(5), torch.ones(7)) == 0.5


def test_false_positives_at_95_percent_by_hand() -> None:
    known = torch.arange(1.0, 21.0)  # 95 % of 20 are 19: the threshold is 19
    assert fpr_at_tpr(known, torch.tensor([18.0, 19.0, 19.5, 30.0])) == 0.5
    assert fpr_at_tpr(known, torch.tensor([100.0])) == 0.0


def test_the_risk_coverage_curve_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.5, 0.7, 0.6])
    correct = torch.tensor([True, False, True, False])
    coverage, risk = risk_coverage(confidence, correct)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert aurc(confidence, correct) == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_a_constant_confidence_gains_nothing() -> None:
    correct = torch.tensor([True, True, True, False])
    assert aurc(torch.full((4,), 0.75), correct) == pytest.approx(0.25)
    assert aurc(torch.full((4,), 0.75), correct.flip(0)) == pytest.approx(0.25)


def test_how_many_answers_reach_an_accuracy() -> None:
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = torch.tensor([True, True, False, True, False])
    found = coverage_at_accuracy(confidence, correct, 0.75)
    assert found == pytest.approx({"coverage": 0.8, "accuracy": 0.75, "threshold": 0.6})
    assert coverage_at_accuracy(confidence, ~correct, 0.75) is None


def test_equal_confidences_are_answered_together() -> None:
    confidence = torch.tensor([0.9, 0.9, 0.5])
    found = coverage_at_accuracy(confidence, torch.tensor([True, False, False]), 0.5)
    assert found == pytest.approx({"coverage": 2 / 3, "accuracy": 0.5, "threshold": 0.9})
    assert coverage_at_accuracy(confidence, torch.tensor([True, False, False]), 0.6) is None


def test_the_rejection_threshold_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = torch.tensor([True, True, False, True, False])
    found = rejection_threshold(confidence, correct, target_accuracy=0.75)
    assert found["threshold"] == pytest.approx(0.6)
    assert (found["coverage"], found["accuracy"]) == (pytest.approx(0.8), pytest.approx(0.75))
    found = rejection_threshold(confidence, correct, min_coverage=0.5)
    assert found["threshold"] == pytest.approx(0.7)
    assert (found["coverage"], found["accuracy"]) == (pytest.approx(0.6), pytest.approx(2 / 3))


def test_an_answer_below_the_stored_threshold_is_rejected() -> None:
    stored = {"rejection": {"threshold": 0.7}}
    assert rejection_of(0.69, stored) == {"rejected": True, **stored}
    assert rejection_of(0.7, stored)["rejected"] is False
    assert rejection_of(0.1, {}) == rejection_of(0.1, None) == {}


def test_a_threshold_that_cannot_be_is_refused() -> None:
    confidence, wrong = torch.tensor([0.9, 0.8]), torch.tensor([False, False])
    with pytest.raises(UserError, match="no share of these 2 videos"):
        rejection_threshold(confidence, wrong, target_accuracy=0.9)
    with pytest.raises(UserError, match="not both"):
        rejection_threshold(confidence, wrong, target_accuracy=0.9, min_coverage=0.5)
    with pytest.raises(UserError, match="between 0 and 1"):
        rejection_threshold(confidence, wrong, min_coverage=0.0)
