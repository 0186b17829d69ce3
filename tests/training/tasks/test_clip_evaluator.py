"""Accuracy of clips, merged from several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from marey.errors import UserError
from marey.training.tasks.clip_evaluator import ClipsEvaluator


def test_evaluators_merge_without_duplicates_in_sample_order() -> None:
    def batch(samples: list[int]) -> dict[str, torch.Tensor]:
        return {"sample": torch.tensor(samples), "label": torch.tensor(samples) % 2}

    parts = []
    for samples in ([0, 2, 4], [1, 3, 0]):
        evaluator = ClipsEvaluator(("a", "b"))
        evaluator.update({"logits": torch.eye(2)[[0] * 3]}, batch(samples))
        parts.append(evaluator.state())
    merged = ClipsEvaluator(("a", "b"))
    merged.merge(parts)
    assert list(merged.rows) == [0, 1, 2, 3, 4]
    metrics = merged.compute()
    assert (metrics["top1"], metrics["mean_class_accuracy"], metrics["videos"]) == (0.6, 0.5, 5)


def test_an_evaluation_of_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="no validation video could be read"):
        ClipsEvaluator(("a", "b")).compute()


class LargestLogit:
    """A measure: the mean of the largest logit."""

    def row_of(self, outputs: dict[str, Any], position: int) -> dict[str, Any]:
        return {"largest": float(outputs["logits"][position].max())}

    def compute(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {"largest": sum(row["largest"] for row in rows) / len(rows)}


def test_a_measure_adds_its_metrics() -> None:
    evaluator = ClipsEvaluator(("a", "b"), [LargestLogit()])
    logits = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    evaluator.update({"logits": logits}, {"sample": torch.tensor([0, 1]), "label": torch.zeros(2)})
    assert evaluator.compute()["largest"] == 3.0
    assert evaluator.compute()["top1"] == 0.5
