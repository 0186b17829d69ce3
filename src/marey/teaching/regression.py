"""Regression on features, by the products of their rows.

Legend: M videos, V views of each, Q features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from marey.teaching.logistic import KernelLogistic
from marey.teaching.ridge import KernelRidge, standardise

KERNELS: dict[str, type[KernelRidge] | type[KernelLogistic]] = {
    "ridge": KernelRidge,
    "logistic": KernelLogistic,
}


class Regression:
    """Ridge or logistic regression on features.

    Args:
        kind: of `KERNELS`.
        values: (M, V, Q), every view is a row.
        labels: int64 (M,).
        num_classes: K.
        blocks: see `standardise`.
    """

    def __init__(
        self, kind: str, values: Tensor, labels: Tensor, num_classes: int, blocks: Sequence[int]
    ) -> None:
        self.standard = standardise(values.flatten(0, 1), blocks)
        self.rows = self.standard(values.flatten(0, 1))  # (M * V, Q)
        self.fitted = KERNELS[kind](self.rows @ self.rows.T, labels, num_classes)

    def logits(self, values: Tensor, strength: float) -> Tensor:
        """Return the logits (N, K), mean over views, of values (N, V, Q)."""
        return self.fitted.logits_of(self.standard(values).mean(1) @ self.rows.T, [strength])[0]

    def linear(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return weight (K, Q) and bias (K,) for features as they are."""
        of_rows, bias = self.fitted.scores_of_rows(strength)
        weight = (self.rows.T @ of_rows).T * self.standard.scale
        return weight, bias - weight @ self.standard.mean
