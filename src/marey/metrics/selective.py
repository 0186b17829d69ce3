"""How well a score tells two kinds of samples apart, and how well a confidence tells right answers
from wrong ones.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return the probability that an unknown sample scores higher than a known one.

    The area under the receiver operating characteristic, as the Mann-Whitney statistic; ties count
    half.

    Args:
        known, unknown: float, (N,) and (M,), scores; larger means less known.

    Returns:
        0..1, 0.5 for no signal; NaN where either is empty.
    """
    if not len(known) or not len(unknown):
        return float("nan")
    ordered = known.double().sort().values
    unknown = unknown.double()
    below = torch.searchsorted(ordered, unknown, right=False)
    at_most = torch.searchsorted(ordered, unknown, right=True)
    return float((below + at_most).double().mean() / (2 * len(known)))


def fpr_at_tpr(known: Tensor, unknown: Tensor, tpr: float = 0.95) -> float:
    """Return the share of unknown samples taken for known at the threshold that keeps `tpr` of the
    known ones.

    Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
    2017; known samples are the positives, as in Liu et al., 2020 ("FPR95").

    Args:
        known, unknown: as `auroc`.
        tpr: share of known samples at or below the threshold, 0..1.

    Returns:
        0..1; NaN where either is empty.
    """
    if not len(known) or not len(unknown):
        return float("nan")
    ordered = known.double().sort().values
    rank = min(len(ordered), max(1, -int(-tpr * len(ordered) // 1)))  # ceil
    return float((unknown.double() <= ordered[rank - 1]).double().mean())


def risk_coverage(confidence: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
    """Return the risk-coverage curve: how wrong the most confident answers are.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", 2010. Answers
    of equal confidence share their errors evenly, so a constant confidence has a constant risk.

    Args:
        confidence: float, (N,).
        correct: bool or float, (N,).

    Returns:
        Coverage (N,), 1/N..1, and the share of wrong answers among that many most confident ones.
    """
    order = confidence.double().argsort(descending=True, stable=True)
    _, run = torch.unique_consecutive(confidence.double()[order], return_inverse=True)
    wrong = 1 - correct.double()[order]
    sums = torch.zeros(int(run.max()) + 1, dtype=torch.double).index_add_(0, run, wrong)
    shared = (sums / torch.bincount(run))[run]
    count = torch.arange(1, len(wrong) + 1, dtype=torch.double)
    return count / len(wrong), shared.cumsum(0) / count


def aurc(confidence: Tensor, correct: Tensor) -> float:
    """Return the area under the risk-coverage curve, the mean risk over all coverages.

    Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", 2019. A
    confidence without signal has the error rate. NaN without samples.
    """
    if not len(correct):
        return float("nan")
    return float(risk_coverage(confidence, correct)[1].mean())


def coverage_at_accuracy(
    confidence: Tensor, correct: Tensor, accuracy: float
) -> dict[str, Any] | None:
    """Return the largest share of answers whose accuracy is at least `accuracy`.

    Returns:
        "coverage", "accuracy", and "threshold", the confidence below which no answer is given; None
        where no share of the answers is that accurate. Measured on the samples the threshold is
        chosen on, so a little optimistic.
    """
    coverage, risk = risk_coverage(confidence, correct)
    ordered = confidence.double().sort(descending=True).values
    last = torch.cat([ordered[1:] != ordered[:-1], torch.tensor([True])])  # no tie is cut
    fits = (last & (1 - risk >= accuracy - 1e-12)).nonzero().flatten()
    if not len(fits):
        return None
    place = int(fits[-1])
    return {
        "coverage": float(coverage[place]),
        "accuracy": float(1 - risk[place]),
        "threshold": float(ordered[place]),
    }


def rejection_threshold(
    confidence: Tensor,
    correct: Tensor,
    *,
    target_accuracy: float | None = None,
    min_coverage: float | None = None,
) -> dict[str, Any]:
    """Return the confidence below which no answer should be given.

    Args:
        confidence: float, (N,), of answers by a model that never saw the videos.
        correct: bool, (N,).
        target_accuracy: share of the given answers that should be right, 0..1; as many as possible
            are given.
        min_coverage: share of the videos that should be answered at least, 0..1; the most confident
            ones.

    Returns:
        JSON types: what was asked, "threshold", "coverage", "accuracy", "num_videos".

    Raises:
        UserError: unless exactly one of both is given, within 0..1, and can be reached.
    """
    if (target_accuracy is None) == (min_coverage is None):
        raise UserError("give a target accuracy or a smallest coverage, not both and not neither")
    asked = target_accuracy if min_coverage is None else min_coverage
    assert asked is not None
    if not 0 < asked <= 1:
        raise UserError(f"a share of answers lies between 0 and 1, got {asked:g}")
    if min_coverage is None:
        found = coverage_at_accuracy(confidence, correct, asked)
        if found is None:
            raise UserError(
                f"no share of these {len(correct)} videos is answered with {asked:.0%} right, not "
                "even the most confident answers; ask for less"
            )
        return {"target_accuracy": asked, **found, "num_videos": len(correct)}
    ordered = confidence.double().sort(descending=True).values
    threshold = float(ordered[max(0, -int(-asked * len(ordered) // 1) - 1)])
    given = confidence.double() >= threshold
    return {
        "min_coverage": asked,
        "coverage": float(given.double().mean()),
        "accuracy": float(correct[given].double().mean()),
        "threshold": threshold,
        "num_videos": len(correct),
    }


def rejection_of(confidence: float, calibration: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a stored `rejection_threshold` says of an answer: "rejected", and the stored
    "rejection"; nothing where none is stored."""
    stored = (calibration or {}).get("rejection")
    if not stored:
        return {}
    return {"rejected": confidence < stored["threshold"], "rejection": stored}
