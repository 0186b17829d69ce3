"""Multinomial logistic regression in the space that the training rows span.

Legend: M videos, V views of each, R rank, Q features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.teaching.ridge import standardise

LOGISTIC_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Strengths of the penalty that cross-validation chooses from."""
MAX_STEPS = 60


class Logistic:
    """Logistic regression with an L2 penalty, by L-BFGS.

    The penalised weights lie in the span of the rows, so rows are replaced by their coordinates in
    it, which changes nothing but the cost.

    Args:
        values: (M, V, Q), every view is a row.
        labels: int64 (M,).
        num_classes: K.
        blocks: see `standardise`.
    """

    def __init__(
        self, values: Tensor, labels: Tensor, num_classes: int, blocks: Sequence[int]
    ) -> None:
        V = values.shape[1]
        self.standard = standardise(values.flatten(0, 1), blocks)
        rows = self.standard(values.flatten(0, 1))  # (M * V, Q)
        eigenvalues, vectors = torch.linalg.eigh(rows @ rows.T)
        kept = eigenvalues > 1e-8 * eigenvalues.max().clamp(min=1e-12)
        roots = eigenvalues[kept].sqrt()
        self.coordinates = vectors[:, kept] * roots  # (M * V, R)
        self.basis = rows.T @ (vectors[:, kept] / roots)  # (Q, R), orthonormal columns
        self.labels = labels.repeat_interleave(V)
        self.num_classes = num_classes

    def weights(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return weight (R, K) and bias (K,) that minimise the mean cross-entropy plus
        strength / 2 * |weight|^2 / M V."""
        count, R = self.coordinates.shape
        weight = torch.zeros(R, self.num_classes, dtype=torch.double, requires_grad=True)
        bias = torch.zeros(self.num_classes, dtype=torch.double, requires_grad=True)
        search = torch.optim.LBFGS(
            [weight, bias], max_iter=MAX_STEPS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            search.zero_grad()
            logits = self.coordinates @ weight + bias
            value = F.cross_entropy(logits, self.labels)
            value = value + 0.5 * strength * weight.pow(2).sum() / count
            value.backward()
            return value

        search.step(loss)
        return weight.detach(), bias.detach()

    def logits(
        self, values: Tensor, strengths: Sequence[float] = LOGISTIC_STRENGTHS
    ) -> list[Tensor]:
        """Return the logits (N, K), mean over views, of values (N, V, Q) for each strength."""
        asked = self.standard(values).mean(1) @ self.basis
        found = [self.weights(strength) for strength in strengths]
        return [asked @ weight + bias for weight, bias in found]

    def linear(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return weight (K, Q) and bias (K,) for features as they are."""
        weight, bias = self.weights(strength)
        full = (self.basis @ weight).T * self.standard.scale
        return full, bias - full @ self.standard.mean
