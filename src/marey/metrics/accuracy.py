"""Classification metrics: top-k, mean class accuracy, confusion matrix, per-class table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def topk_correct(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return (N,) bools: whether the label is among the k highest scores; ties count for the lower
    class number.

    Args:
        scores: float, (N, K), any scale.
        labels: int, (N,).
    """
    own = scores.gather(1, labels[:, None])  # (N, 1)
    classes = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > own) | ((scores == own) & (classes < labels[:, None]))
    return ahead.sum(1) < k


def topk_accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Return the share of samples whose label is among the k highest scores, 0..1; NaN without
    samples."""
    return topk_correct(scores, labels, k).double().mean().item()


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count predictions: entry (i, j) is the number of samples of class i predicted as j; int64,
    (K, K)."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def mean_class_accuracy(confusion: Tensor) -> float:
    """Return the mean over classes of correct / size; classes without samples are skipped (metric
    of UCF101)."""
    sizes = confusion.sum(1)
    present = sizes > 0
    return (confusion.diagonal()[present].double() / sizes[present].double()).mean().item()


def per_class_table(confusion: Tensor, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per class: videos, accuracy (recall), precision, F1, and the class it is most
    often confused with.

    Undefined values (no videos, never predicted, never confused) are None.
    """
    rows = []
    for number, name in enumerate(class_names):
        size, called = int(confusion[number].sum()), int(confusion[:, number].sum())
        correct = int(confusion[number, number])
        wrong = confusion[number].clone()
        wrong[number] = 0
        accuracy = correct / size if size else None
        precision = correct / called if called else None
        f1 = 2 * correct / (size + called) if size + called else None
        rows.append(
            {
                "class": name,
                "videos": size,
                "accuracy": accuracy,
                "precision": precision,
                "f1": f1,
                "taken_for": class_names[int(wrong.argmax())] if int(wrong.sum()) else None,
            }
        )
    return rows
