"""At the end of training: the temperature and the OOD detector, fitted on held-out videos.

The temperature is fitted on the validation videos. The OOD detector takes means and covariance
from training clips, and its threshold from the scores of validation clips: by construction about
`FALSE_ALARM_RATE` of known held-out videos score above it. Its miss rate can only be measured on
actions that the model was never trained on.

Legend: N samples, D width of the embedding, C width of the stem embedding, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    ood_features,
    ood_score,
    stem_distance,
)
from marey.models.timesformer import with_stem
from marey.training.sampler import Key
from marey.training.task import Batch

FALSE_ALARM_RATE = 0.05
"""Share of known held-out samples that may be called unknown."""
STEM_FALSE_ALARM_RATE = 0.02
"""The same for the distance of the stem embedding, where the model has a pretrained stem."""
MAX_FITTED = 2000
"""Most training clips the OOD detector is fitted on."""
BANK_SIZE = 512
"""Most training embeddings stored for the nearest-neighbour score."""


def calibration_keys(num_samples: int) -> list[Key]:
    """Return the keys of the training items that the OOD detector is fitted on: at most
    `MAX_FITTED`, at random."""
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(0))
    return [(0, sample) for sample in order[:MAX_FITTED].tolist()]


@torch.no_grad()
def embed(model: nn.Module, loader: Iterable[Batch], device: torch.device) -> dict[str, Tensor]:
    """Return what `fit_trust` takes, for every video that can be read.

    Args:
        model: gives "embedding" and "logits"; put into evaluation mode.
        loader: batches with "clip" and "label".
        device: where the model is.

    Returns:
        "embedding" (N, D), "logits" (N, K), "label" (N,), and "stem" (N, C) where the model has a
        pretrained stem.
    """
    model.eval()
    found: dict[str, list[Tensor]] = {"embedding": [], "logits": [], "label": []}
    for batch in loader:
        if "clip" not in batch:  # no video of this batch could be read
            continue
        clip, stem = with_stem(model, batch["clip"].to(device))
        outputs = model(clip)

        if stem is not None:
            found.setdefault("stem", []).append(stem.cpu())
        found["embedding"].append(outputs["embedding"].float().cpu())
        found["logits"].append(outputs["logits"].float().cpu())
        found["label"].append(batch["label"])
    return {name: torch.cat(parts) if parts else torch.zeros(0) for name, parts in found.items()}


def fit_trust(
    train: dict[str, Tensor], val: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit temperature and OOD detector.

    Args:
        train, val: what `embed` returned for training and validation videos.

    Returns:
        The checkpoint's calibration (JSON types) and its tensors.
    """
    temperature = fit_temperature(val["logits"], val["label"])
    before = val["logits"].softmax(-1)
    after = (val["logits"] / temperature).softmax(-1)
    calibration: dict[str, Any] = {
        "temperature": temperature,
        "fitted_on": len(val["label"]),
        "ece_before": expected_calibration_error(before, val["label"]),
        "ece": expected_calibration_error(after, val["label"]),
    }

    # Each raw score is standardised by its mean and standard deviation on known held-out videos,
    # so that the three can be averaged.
    tensors = fit_detector(train["embedding"], train["label"])
    raw_scores = ood_features(val["embedding"], val["logits"], tensors)
    calibration["ood"] = {
        "method": "knn + mahalanobis + energy",
        "signs": ["knn", "mahalanobis", "energy"],
        "weights": [1.0, 1.0, 1.0],
        "centre": raw_scores.mean(0).tolist(),
        "spread": raw_scores.std(0, correction=0).clamp(min=1e-6).tolist(),
        "false_alarm_rate": FALSE_ALARM_RATE,
        "fitted_on": len(val["label"]),
    }
    scores = ood_score(val["embedding"], val["logits"], calibration, tensors)
    calibration["ood"]["threshold"] = threshold_of(scores, FALSE_ALARM_RATE)

    if "stem" in train and "stem" in val:
        stem_values, stem_tensors = fit_stem(train["stem"], val["stem"])
        calibration["ood"] |= stem_values
        tensors |= stem_tensors
    return calibration, tensors


def threshold_of(scores: Tensor, false_alarm_rate: float) -> float:
    """Return the score that at most a share of known samples exceed.

    Conformal quantile: the ceil((n + 1)(1 - rate))-th smallest of n scores, so that the rate holds
    for new samples too. With too few samples for the rate (n < 1 / rate - 1) there is none; then
    the largest score plus half the standard deviation.
    """
    n = len(scores)
    rank = math.ceil((n + 1) * (1 - false_alarm_rate))
    ordered = scores.sort().values
    if rank <= n:
        return float(ordered[rank - 1])
    return float(ordered[-1] + 0.5 * scores.std(correction=0))


def fit_detector(embedding: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the tensors that `ood_features` takes, from training embeddings (N, D) and labels
    (N,).

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", NeurIPS
    2018: one mean per class, one covariance for all. It is shrunk, see `whitening_of`.
    """
    embedding = embedding.double()
    N = len(embedding)
    centre = embedding.mean(0)
    classes = labels.unique()
    means = torch.stack([embedding[labels == label].mean(0) for label in classes])  # (K', D)

    own_class = torch.searchsorted(classes, labels)
    whitening = whitening_of(embedding - means[own_class], N - len(classes))  # (D, D)
    kept = torch.randperm(N, generator=torch.Generator().manual_seed(0))[:BANK_SIZE]
    neighbours = max(1, min(10, N // (5 * len(classes))))
    return {
        "ood_bank": F.normalize(embedding[kept], dim=-1).half(),
        "ood_means": ((means - centre) @ whitening).float(),
        "ood_whitening": whitening.float(),
        "ood_mean": centre.float(),
        "ood_neighbours": torch.tensor(neighbours),
    }


def whitening_of(residual: Tensor, degrees: int) -> Tensor:
    """Return the matrix (D, D) that makes residuals (N, D) white under their shrunk covariance.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004:
    shrunk towards its mean variance, so that it can be inverted with fewer samples than dimensions.
    We differ in one place: the share of the shrinkage is D / (D + N), not estimated.

    Args:
        residual: float64, differences from the class means.
        degrees: of freedom, N less the number of means.
    """
    N, D = residual.shape
    covariance = residual.T @ residual / max(1, degrees)
    share = D / (D + N)
    mean_variance = covariance.diagonal().mean().clamp(min=1e-12)
    identity = torch.eye(D, dtype=torch.double)
    covariance = (1 - share) * covariance + share * mean_variance * identity
    return torch.linalg.inv(torch.linalg.cholesky(covariance)).T


def fit_stem(train: Tensor, val: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit the second score, the distance of a clip's stem embedding, from known clips (N, C) each.

    Returns:
        What goes into `calibration["ood"]` beside the first score, and the tensors that
        `stem_distance` takes.
    """
    train = train.double()
    centre = train.mean(0)
    whitening = whitening_of(train - centre, len(train) - 1)
    tensors = {"ood_stem_mean": centre.float(), "ood_stem_whitening": whitening.float()}

    known = stem_distance(val, tensors)
    values = {
        "stem_threshold": threshold_of(known, STEM_FALSE_ALARM_RATE),
        "stem_false_alarm_rate": STEM_FALSE_ALARM_RATE,
    }
    return values, tensors
