"""Multinomial logistic regression in the space that the training rows span.

Legend: M videos, V views of each, R rank, Q features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LOGISTIC_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Strengths of the penalty that cross-validation chooses from."""
MAX_STEPS = 60


class KernelLogistic:
    """Logistic regression with an L2 penalty, by L-BFGS.

    The penalised weights lie in the span of the rows, so rows are replaced by their coordinates in
    it, which changes nothing but the cost.

    Args:
        gram: (M * V, M * V), products of the rows.
        labels: int64 (M,).
        num_classes: K.
    """

    def __init__(self, gram: Tensor, labels: Tensor, num_classes: int) -> None:
        eigenvalues, vectors = torch.linalg.eigh(gram)
        kept = eigenvalues > 1e-8 * eigenvalues.max().clamp(min=1e-12)
        roots = eigenvalues[kept].sqrt()
        self.coordinates = vectors[:, kept] * roots  # (M * V, R)
        self.to_coordinates = vectors[:, kept] / roots  # of products with the rows
        self.labels = labels.repeat_interleave(len(gram) // len(labels))
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

    def scores_of_rows(self, strength: float) -> tuple[Tensor, Tensor]:
        """Return (M * V, K) and bias (K,): logits are products with the rows times the first, plus
        the second."""
        weight, bias = self.weights(strength)
        return self.to_coordinates @ weight, bias

    def logits_of(
        self, cross: Tensor, strengths: Sequence[float] = LOGISTIC_STRENGTHS
    ) -> list[Tensor]:
        """Return the logits (N, K) for each strength, of products (N, M * V) with the rows."""
        asked = cross @ self.to_coordinates
        found = [self.weights(strength) for strength in strengths]
        return [asked @ weight + bias for weight, bias in found]
