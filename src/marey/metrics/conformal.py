"""Prediction sets that hold the true class with a stated probability: conformal prediction.

    scores = aps_scores(probs)                          # (N, K), out-of-fold answers
    threshold = conformal_threshold(scores.gather(1, labels[:, None])[:, 0], coverage=0.9)
    inside = prediction_sets(probs, threshold)          # (N, K) bools

The scores are out-of-fold: every video is answered by a model that never saw its group
(cross-conformal prediction: Vovk, 2015; Barber et al., "Predictive inference with the jackknife+",
2021). Videos of a group are not exchangeable with each other, so the threshold weighs every group
alike (Dunn et al., "Distribution-Free Prediction Sets for Two-Layer Hierarchical Models", 2022).

Legend: N videos, K classes, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def aps_scores(probs: Tensor, *, penalty: float = 0.0, free: int = 1) -> Tensor:
    """Return for each class the probability of the more probable classes and half its own: APS.

    Romano et al., "Classification with Valid and Adaptive Coverage", 2020, Eq. 8, with their random
    number u fixed at 1/2, so the same video always gets the same set; u = 0 would cover more than
    asked. With a penalty: RAPS, Angelopoulos
    et al., "Uncertainty Sets for Image Classifiers using Conformal Prediction", 2021, Eq. 4.

    Args:
        probs: float, (N, K), rows sum to 1.
        penalty: added for each rank beyond `free` (RAPS' lambda).
        free: ranks without penalty (k_reg).

    Returns:
        float64, (N, K).
    """
    ordered, order = probs.double().sort(dim=1, descending=True, stable=True)
    ranks = torch.arange(1, probs.shape[1] + 1, dtype=torch.double)
    totals = ordered.cumsum(1) - ordered / 2 + penalty * (ranks - free).clamp(min=0)
    return torch.zeros_like(totals).scatter(1, order, totals)


def conformal_threshold(
    scores: Tensor, coverage: float = 0.9, groups: Sequence[Any] | None = None
) -> float:
    """Return the score that holds a new true class with probability `coverage`.

    The ceil((N + 1) coverage)-th smallest of N scores (Vovk et al., 2005). With groups every group
    has the same weight, shared by its videos, and a new video the weight 1 / (N + 1). That holds
    where videos of a group are hardly alike in their scores; a guarantee for any new group would
    need the weight 1 / (G + 1), with which sets of 90 % covered 100 % on ten groups
    (`python -m benchmarks.trust`).

    Args:
        scores: float, (N,), of the true classes of out-of-fold videos.
        coverage: 0..1.
        groups: scene or person of each video; None counts every video as a group.

    Returns:
        Infinity, so every class is in every set, with too few videos: with coverage 0.9, fewer
        than 9.
    """
    names = list(range(len(scores))) if groups is None else list(groups)
    sizes: dict[Any, int] = {}
    for name in names:
        sizes[name] = sizes.get(name, 0) + 1
    weights = torch.tensor([1 / sizes[name] / len(sizes) for name in names], dtype=torch.double)
    weights *= len(names) / (len(names) + 1)
    order = scores.double().argsort(stable=True)
    reached = (weights[order].cumsum(0) >= coverage - 1e-9).nonzero().flatten()
    return float(scores.double()[order[reached[0]]]) if len(reached) else math.inf


def prediction_sets(
    probs: Tensor, threshold: float, *, penalty: float = 0.0, free: int = 1
) -> Tensor:
    """Return which classes are in each set, bool (N, K): scores at most the threshold.

    The most probable class is always in it: a set without any class says nothing.
    """
    inside = aps_scores(probs, penalty=penalty, free=free) <= threshold + 1e-9
    return inside.scatter(1, probs.argmax(1, keepdim=True), True)


def set_measures(inside: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return coverage, overall and per class, and mean size of prediction sets.

    Args:
        inside: bool, (N, K).
        labels: int, (N,).

    Returns:
        JSON types: "coverage", "mean_size", "share_of_one" (sets of one class), and "per_class",
        the coverage of each class, None where it has no video.
    """
    covered = inside.gather(1, labels[:, None])[:, 0].double()
    per_class = [
        float(covered[labels == k].mean()) if bool((labels == k).any()) else None
        for k in range(inside.shape[1])
    ]
    sizes = inside.sum(1).double()
    return {
        "coverage": float(covered.mean()),
        "mean_size": float(sizes.mean()),
        "share_of_one": float((sizes == 1).double().mean()),
        "per_class": per_class,
    }


def fixed_top_k(probs: Tensor, labels: Tensor, coverage: float) -> int:
    """Return the smallest k whose k most probable classes hold `coverage` of the true ones."""
    ranks = (probs > probs.gather(1, labels[:, None])).sum(1) + 1
    for k in range(1, probs.shape[1]):
        if float((ranks <= k).double().mean()) >= coverage:
            return k
    return probs.shape[1]
