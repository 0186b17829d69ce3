"""Cross-entropy for clips, with label smoothing, class weights and mixed clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError


def soft_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Return target distributions: 1 - smoothing on the label, and smoothing spread evenly over all
    classes.

    Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7.

    Args:
        labels: int, (B,).

    Returns:
        float, (B, K), rows sum to 1.
    """
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of logits against target distributions.

    With weights w the mean is sum_b sum_k w_k t_bk (-log p_bk) / B: a batch of rare classes counts
    more than one of frequent classes. `F.cross_entropy` divides by the batch's total weight
    instead.

    Args:
        logits: float, (B, K).
        targets: float, (B, K), rows sum to 1.
        class_weights: float, (K,), or None for 1.
    """
    if logits.shape != targets.shape:
        raise UserError(
            f"logits are {tuple(logits.shape)} but targets {tuple(targets.shape)}; "
            "build the model with num_classes as the data has"
        )
    losses = -targets * F.log_softmax(logits.float(), dim=-1)  # (B, K)
    return (losses if class_weights is None else losses * class_weights).sum(-1).mean()


def balanced_class_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Return (K,) weights inverse to the class counts, 1 on average over `labels`; classes that do
    not occur get 0."""
    # 1 / count, scaled so that the mean over the given labels is 1.
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_classes).float()
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1), torch.zeros(()))
    return weights * len(labels) / (counts > 0).sum()
