"""Ridge regression on one-hot labels in its dual form: closed form, one decomposition for every
strength.

Legend: M videos, V views of each, Q features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the penalty that cross-validation chooses from."""
LOGITS_PER_SCORE = 10.0
"""Scores of ridge regression lie near 0 and 1; logits are ten times that, before the temperature is
fitted."""


@dataclass(frozen=True)
class Standardised:
    """How features are standardised: each block of encoders has the same weight, however wide."""

    mean: Tensor
    """(Q,)"""
    scale: Tensor
    """(Q,), multiplied after the mean is taken off."""

    def __call__(self, values: Tensor) -> Tensor:
        """Return (..., Q) float64."""
        return (values.double() - self.mean) * self.scale


def standardise(values: Tensor, blocks: Sequence[int]) -> Standardised:
    """Return the standardisation of values (M, Q), so that squared length is about one per row.

    Args:
        blocks: widths of the encoders' parts, which add up to Q.
    """
    values = values.double()
    std = values.std(0, correction=0)
    # A feature that does not vary says nothing and would be divided by zero.
    scale = torch.where(std > 1e-6 * (1 + values.mean(0).abs()), 1 / std.clamp(min=1e-12), 0.0)
    widths = torch.repeat_interleave(torch.tensor(blocks), torch.tensor(blocks)).double()
    return Standardised(values.mean(0), scale / (widths * len(blocks)).sqrt())


def kernels(known: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the products of standardised rows with one another and of asked videos with them.

    Those of a sum of encoders are the mean of those of its parts.

    Args:
        known: (M, V, Q) of one encoder.
        asked: (N, V, Q).

    Returns:
        (M * V, M * V) and, mean over the views of a video, (N, M * V).
    """
    standard = standardise(known.flatten(0, 1), [known.shape[2]])
    rows = standard(known.flatten(0, 1))
    return rows @ rows.T, standard(asked).mean(1) @ rows.T


class KernelRidge:
    """Ridge regression fitted for every one of `STRENGTHS` at once.

    Args:
        gram: (M * V, M * V), products of the rows.
        labels: int64 (M,).
        num_classes: K.
    """

    def __init__(self, gram: Tensor, labels: Tensor, num_classes: int) -> None:
        V = len(gram) // len(labels)
        targets = F.one_hot(labels, num_classes).double().repeat_interleave(V, dim=0)
        self.target_mean = targets.mean(0)
        # (R R' + s I) a = Y, with R R' = U diag(e) U', for every strength s.
        eigenvalues, self.vectors = torch.linalg.eigh(gram)
        self.eigenvalues = eigenvalues.clamp(min=0)
        self.projected = self.vectors.T @ (targets - self.target_mean)

    def dual(self, strength: float) -> Tensor:
        """Return the dual coefficients (M * V, K)."""
        # A row's squared length is about one, whatever the encoder, so strengths are comparable.
        return self.vectors @ (self.projected / (self.eigenvalues + strength)[:, None])

    def scores_of_rows(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return (M * V, K) and bias (K,): logits are products with the rows times the first, plus
        the second."""
        return LOGITS_PER_SCORE * self.dual(strength), LOGITS_PER_SCORE * self.target_mean

    def logits_of(self, cross: Tensor, strengths: Sequence[float] = STRENGTHS) -> list[Tensor]:
        """Return the logits (N, K) for each strength, of products (N, M * V) with the rows."""
        return [
            LOGITS_PER_SCORE * (cross @ self.dual(strength) + self.target_mean)
            for strength in strengths
        ]
