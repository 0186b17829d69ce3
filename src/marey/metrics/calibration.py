"""Calibration error, temperature scaling, and the OOD (out-of-distribution) score.

The OOD detector is stored in a checkpoint as JSON (`calibration["ood"]`) and tensors whose names
start with "ood_"; `ood_score` computes the score from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError
from marey.metrics.intervals import proportion_interval


def expected_calibration_error(probs: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Return the expected calibration error of the top-1 probability.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, Eq. 3: the mean over equal-width
    bins, weighted by their samples, of |accuracy - mean confidence|.

    Args:
        probs: float, (N, K), rows sum to 1.
        labels: int, (N,).
    """
    confidence, predicted = probs.double().max(1)
    return calibration_error(confidence, predicted == labels, num_bins)


def calibration_error(confidence: Tensor, correct: Tensor, num_bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al., Eq. 3) from the top-1 predictions alone.

    Args:
        confidence: float, (N,), probability of the predicted class.
        correct: bool or float, (N,).
        num_bins: number of equal-width bins.
    """
    confidence, correct = confidence.double(), correct.double()
    gap = torch.zeros(num_bins, dtype=torch.double)
    gap.index_add_(0, _bins(confidence, num_bins), correct - confidence)
    return (gap.abs().sum() / max(1, len(correct))).item()


def _bins(confidence: Tensor, num_bins: int) -> Tensor:
    """Return the bin of each confidence, int64 (N,): bin b is (b / bins, (b + 1) / bins]."""
    return (confidence.double() * num_bins).ceil().long().clamp(1, num_bins) - 1


def brier_score(probs: Tensor, labels: Tensor) -> float:
    """Return the Brier score, the mean squared distance of the probabilities from the truth.

    Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950, Eq. 2.

    Args:
        probs: float, (N, K), rows sum to 1.
        labels: int, (N,).

    Returns:
        0 (certain and right) to 2 (certain and wrong); 1 - 1 / K for uniform probabilities.
    """
    truth = F.one_hot(labels, probs.shape[1]).double()
    return ((probs.double() - truth) ** 2).sum(1).mean().item()


def calibration_noise_floor(
    confidence: Tensor,
    num_bins: int = 15,
    *,
    level: float = 0.95,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> float:
    """Return the calibration error that a perfectly calibrated model stays below in `level` of all
    samples of this size.

    With n videos the calibration error of a perfect model is about 0.4 sqrt(bins / n), not 0: a
    smaller error is no evidence, a larger one is (Vaicenavicius et al., "Evaluating model
    calibration in classification", 2019: consistency resampling).

    Args:
        confidence: float, (N,), probability of the predicted class.
        num_bins: as `calibration_error`.
        draws: of right and wrong answers, each right with its confidence.
        generator: None takes a fixed seed.
    """
    if not len(confidence):
        return 0.0
    generator = generator or torch.Generator().manual_seed(0)
    confidence = confidence.double()
    chances = torch.rand(draws, len(confidence), generator=generator, dtype=torch.double)
    inside = F.one_hot(_bins(confidence, num_bins), num_bins).double()  # (N, bins)
    gaps = ((chances < confidence).double() - confidence) @ inside  # (draws, bins)
    errors = gaps.abs().sum(1) / len(confidence)
    return float(torch.quantile(errors, level))


def reliability_curve(
    confidence: Tensor, correct: Tensor, num_bins: int = 10, groups: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """Return how often answers of about one confidence are right, with 95% intervals.

    Args:
        confidence: float, (N,), probability of the predicted class.
        correct: bool, (N,).
        num_bins: equal-width bins (Guo et al., 2017, figure 1).
        groups: scene or person of each video, see `proportion_interval`.

    Returns:
        JSON types, one row per bin that holds videos: "from", "to", "videos", "confidence" (mean),
        "accuracy", "low", "high".
    """
    bins = _bins(confidence, num_bins)
    rows = []
    for number in bins.unique().tolist():
        inside = bins == number
        own = None
        if groups is not None:
            own = [group for group, keep in zip(groups, inside.tolist(), strict=True) if keep]
        low, high = proportion_interval(correct[inside], own)
        rows.append(
            {
                "from": number / num_bins,
                "to": (number + 1) / num_bins,
                "videos": int(inside.sum()),
                "confidence": float(confidence[inside].double().mean()),
                "accuracy": float(correct[inside].double().mean()),
                "low": low,
                "high": high,
            }
        )
    return rows


def fit_temperature(logits: Tensor, labels: Tensor, prior_deviation: float | None = 0.5) -> float:
    """Return the temperature that minimises the cross-entropy of logits / temperature, within
    [0.05, 20].

    Guo et al., 2017, section 4.2. The cross-entropy is convex in 1 / temperature, so a
    golden-section search over its logarithm finds the one minimum. We add a normal prior on
    log(temperature) around 0: it is negligible for hundreds of samples, and keeps the temperature
    of a handful of them away from the bounds.

    Args:
        logits: float, (N, K), of held-out samples.
        labels: int, (N,).
        prior_deviation: standard deviation of the prior; None leaves it out.

    Returns:
        1.0 without samples.
    """
    if len(labels) == 0:
        return 1.0

    def loss(log_temperature: float) -> float:
        prior = 0.0 if prior_deviation is None else 0.5 * (log_temperature / prior_deviation) ** 2
        return (
            F.cross_entropy(
                logits.double() / math.exp(log_temperature), labels, reduction="sum"
            ).item()
            + prior
        )

    # Golden-section search on log(temperature) in [-3, 3]: e^-3 = 0.05, e^3 = 20.
    low, high, golden = -3.0, 3.0, 0.6180339887498949
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


# ---- OOD detector
# ------------------------------------------------------------------------------


def cosine_knn(embedding: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    """Return the cosine distance of each row to its k-th nearest row of a bank, 0..2.

    Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", 2022, Eq. 3.

    Args:
        embedding: float, (B, D), any length.
        bank: float, (M, D), rows of length 1.
        neighbours: k; with fewer rows the farthest one counts.

    Returns:
        float64, (B,).
    """
    similarity = F.normalize(embedding.double(), dim=-1) @ bank.double().T  # (B, M)
    return 1 - similarity.topk(min(neighbours, len(bank)), dim=-1).values[:, -1]


def ood_features(embedding: Tensor, logits: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the three raw OOD scores, each larger for samples further from the training data.

    * knn: cosine distance to the k-th nearest training embedding, see `cosine_knn`.
    * mahalanobis: distance to the nearest class mean under the shared covariance, shrunk (Lee et
      al., 2018, Eq. 2).
    * energy: -logsumexp of the logits (Liu et al., 2020, Eq. 4, T = 1).

    Args:
        embedding: float, (B, D).
        logits: float, (B, K).
        tensors: "ood_bank" (M, D) unit-norm, "ood_means" (K', D), "ood_whitening" (D, R),
            "ood_mean" (D,).

    Returns:
        float64, (B, 3).
    """
    embedding = embedding.double()
    bank = tensors["ood_bank"].double()
    if embedding.shape[-1] != bank.shape[-1]:
        raise UserError(
            f"the embedding has {embedding.shape[-1]} numbers but the OOD detector was fitted on "
            f"{bank.shape[-1]}; use the detector of the same checkpoint"
        )

    # Each raw score in turn: knn, mahalanobis, energy.
    knn = cosine_knn(embedding, bank, int(tensors["ood_neighbours"]))
    whitening = tensors["ood_whitening"].double()
    white = (embedding - tensors["ood_mean"].double()) @ whitening  # (B, R)
    mahalanobis = torch.cdist(white, tensors["ood_means"].double()).min(-1).values
    return torch.stack([knn, mahalanobis, -torch.logsumexp(logits.double(), -1)], dim=-1)


def ood_score(
    embedding: Tensor, logits: Tensor, calibration: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Tensor:
    """Return the OOD score: the weighted mean of the raw scores, each in standard deviations of
    held-out known samples.

    Args:
        embedding: float, (B, D), the model's "embedding".
        logits: float, (B, K).
        calibration: a checkpoint's calibration, with "ood".
        tensors: a checkpoint's tensors.

    Returns:
        float64, (B,); a sample is unknown above `calibration["ood"]["threshold"]`.

    Raises:
        UserError: if the checkpoint has no OOD detector.
    """
    fitted = calibration.get("ood")
    if not fitted or "ood_bank" not in tensors:
        raise UserError("this checkpoint has no OOD detector; train it with train.calibrate=true")
    raw = ood_features(embedding, logits, tensors)  # (B, 3)
    centre = torch.tensor(fitted["centre"], dtype=torch.double)
    spread = torch.tensor(fitted["spread"], dtype=torch.double)
    weights = torch.tensor(fitted["weights"], dtype=torch.double)
    standard = (raw - centre.to(raw.device)) / spread.to(raw.device)
    return standard @ (weights / weights.sum()).to(raw.device)


def stem_distance(stem_embedding: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return how far the appearance of each clip is from the training clips: Mahalanobis distance
    of stem features.

    The class feature drops what the classes do not need, for example whether a clip is filmed or
    rendered. The mean feature of a pretrained image stem keeps it (Lee et al., 2018, use early
    layers for this).

    Args:
        stem_embedding: float, (B, C), the stem's features averaged over frames and patches.
        tensors: "ood_stem_mean" (C,) and "ood_stem_whitening" (C, C).

    Returns:
        float64, (B,), not negative; about sqrt(C) for clips like those of training.
    """
    centred = stem_embedding.double() - tensors["ood_stem_mean"].double()
    return (centred @ tensors["ood_stem_whitening"].double()).norm(dim=-1)
