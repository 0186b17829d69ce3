"""The validation of the task "clips": accuracy, and what the terms add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from marey.errors import UserError
from marey.metrics.accuracy import confusion_matrix, mean_class_accuracy, topk_accuracy
from marey.training.task import Batch, Evaluator, Outputs


class Measure(Protocol):
    """Something measured beside the accuracy."""

    def row_of(self, outputs: Outputs, position: int) -> dict[str, Any]:
        """Return what is kept of the sample at a position of the batch."""

    def compute(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the metrics of all rows."""


class ClipsEvaluator(Evaluator):
    """Top-1, top-5, mean class accuracy and cross-entropy, and what the measures of the terms add.

    Args:
        class_names: in label order.
        measures: of the other terms.
    """

    main = "top1"

    def __init__(self, class_names: tuple[str, ...], measures: Sequence[Measure] = ()) -> None:
        super().__init__()
        self.class_names, self.measures = class_names, tuple(measures)

    def row_of(self, outputs: Outputs, batch: Batch, position: int) -> dict[str, Any]:
        """Keep logits and label, and what the measures keep."""
        row = {
            "logits": outputs["logits"][position].float().cpu(),
            "label": int(batch["label"][position]),
        }
        for measure in self.measures:
            row |= measure.row_of(outputs, position)
        return row

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares in [0, 1].

        Raises:
            UserError: if no video could be read.
        """
        if not self.rows:
            raise UserError(
                "no validation video could be read; list the reasons with 'marey data check'"
            )
        rows = list(self.rows.values())
        logits = torch.stack([row["logits"] for row in rows])
        labels = torch.tensor([row["label"] for row in rows])
        confusion = confusion_matrix(logits.argmax(1), labels, len(self.class_names))
        metrics = {
            "top1": topk_accuracy(logits, labels, 1),
            "top5": topk_accuracy(logits, labels, 5),
            "mean_class_accuracy": mean_class_accuracy(confusion),
            "loss": nn.functional.cross_entropy(logits.double(), labels).item(),
            "videos": len(labels),
        }
        for measure in self.measures:
            metrics |= measure.compute(rows)
        return metrics
