"""Classification metrics by hand and by brute force."""

from __future__ import annotations

import pytest
import torch

from marey.metrics.accuracy import (
    confusion_matrix,
    mean_class_accuracy,
    per_class_table,
    topk_accuracy,
    topk_correct,
)

SCORES = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [0.2, 0.5, 0.3]])
LABELS = torch.tensor([0, 1, 1, 2])


def test_top_k_by_hand() -> None:
    assert topk_correct(SCORES, LABELS, 1).tolist() == [True, False, False, False]
    assert topk_correct(SCORES, LABELS, 2).tolist() == [True, True, True, True]
    assert topk_accuracy(SCORES, LABELS, 1) == 0.25


def test_top_k_equals_a_full_sort_and_more_than_all_classes_is_always_right() -> None:
    scores, labels = torch.randn(50, 7), torch.randint(7, (50,))
    for k in range(1, 8):
        expected = (scores.topk(k).indices == labels[:, None]).any(1)
        assert torch.equal(topk_correct(scores, labels, k), expected)
    assert topk_accuracy(scores, labels, 10) == 1.0


def test_a_constant_prediction_is_right_for_one_class_only() -> None:
    labels = torch.tensor([0, 1, 2, 3])
    assert topk_correct(torch.zeros(4, 4), labels, 1).tolist() == [True, False, False, False]


def test_the_confusion_matrix_has_true_classes_in_rows() -> None:
    confusion = confusion_matrix(SCORES.argmax(1), LABELS, 3)
    assert confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_mean_class_accuracy_skips_absent_classes() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert mean_class_accuracy(confusion) == pytest.approx((0.75 + 0.5) / 2)


def test_the_table_per_class_by_hand() -> None:
    rows = per_class_table(torch.tensor([[3, 1, 0], [0, 0, 0], [1, 0, 1]]), ("a", "b", "c"))
    assert rows[0] == {
        "class": "a",
        "videos": 4,
        "accuracy": 0.75,
        "precision": 0.75,
        "f1": 0.75,
        "taken_for": "b",
    }
    assert rows[1]["accuracy"] is None
    assert rows[1]["precision"] == 0.0
    assert rows[2]["f1"] == pytest.approx(2 / 3)
