"""At the end of training: fit the temperature and the unknown-detector on held-out videos, and store them.

The temperature is fitted on the validation videos. The unknown-detector learns what known samples look like from
training clips, and places its threshold by the scores of validation clips: by construction about `FALSE_ALARM_RATE` of
known held-out videos lie beyond it. Its miss rate can only be measured on actions never trained on.
"""

from __future__ import annotations

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
from marey.training.task import Batch

FALSE_ALARM_RATE = 0.05
"""Share of known held-out samples that may be called unknown."""
STEM_FALSE_ALARM_RATE = 0.02
"""The same for the look of a clip alone, where the model has a pretrained stem."""
MAX_FITTED = 2000
"""Most training clips the unknown-detector is fitted on."""
BANK_SIZE = 512
"""Most training embeddings stored for the nearest-neighbour sign."""


@torch.no_grad()
def embed(model: nn.Module, loader: Iterable[Batch], device: torch.device) -> dict[str, Tensor]:
    """Return what trust is fitted on, of every video that can be read.

    Args:
        model: gives "embedding" and "logits"; put into evaluation mode.
        loader: batches with "clip" and "label".
        device: where the model is.

    Returns:
        "embedding" (N, D), "logits" (N, K), "label" (N,), and "stem" (N, C) where the model has a pretrained stem.
    """
    model.eval()
    found: dict[str, list[Tensor]] = {"embedding": [], "logits": [], "label": []}
    for batch in loader:
        if "clip" not in batch:                                             # no video of this batch could be read
            continue
        clip, stem = with_stem(model, batch["clip"].to(device))
        outputs = model(clip)
        if stem is not None:
            found.setdefault("stem", []).append(stem.cpu())
        found["embedding"].append(outputs["embedding"].float().cpu())
        found["logits"].append(outputs["logits"].float().cpu())
        found["label"].append(batch["label"])
    return {name: torch.cat(parts) if parts else torch.zeros(0) for name, parts in found.items()}


def fit_trust(train: dict[str, Tensor], val: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit temperature and unknown-detector from embeddings.

    Args:
        train, val: "embedding" (N, D), "logits" (N, K), "label" (N,).

    Returns:
        The checkpoint's calibration (JSON types) and its tensors.
    """
    temperature = fit_temperature(val["logits"], val["label"])
    calibration: dict[str, Any] = {
        "temperature": temperature, "fitted_on": len(val["label"]),
        "ece_before": expected_calibration_error(val["logits"].softmax(-1), val["label"]),
        "ece": expected_calibration_error((val["logits"] / temperature).softmax(-1), val["label"])}
    tensors = fit_detector(train["embedding"], train["label"])
    signs = ood_features(val["embedding"], val["logits"], tensors)
    calibration["ood"] = {"method": "knn + mahalanobis + energy", "signs": ["knn", "mahalanobis", "energy"],
                          "weights": [1.0, 1.0, 1.0], "centre": signs.mean(0).tolist(),
                          "spread": signs.std(0, correction=0).clamp(min=1e-6).tolist(),
                          "false_alarm_rate": FALSE_ALARM_RATE, "fitted_on": len(val["label"])}
    scores = ood_score(val["embedding"], val["logits"], calibration, tensors)
    calibration["ood"]["threshold"] = threshold_of(scores, FALSE_ALARM_RATE)
    if "stem" in train and "stem" in val:
        look, look_tensors = fit_stem(train["stem"], val["stem"])
        calibration["ood"] |= look
        tensors |= look_tensors
    return calibration, tensors


def threshold_of(scores: Tensor, false_alarm_rate: float) -> float:
    """Return the score that at most a share of known samples lie above.

    Conformal quantile: the ceil((n + 1)(1 - rate))-th smallest of n scores, so that the promise holds for new samples
    too; with too few samples for the rate (n < 1 / rate - 1), the largest score and half their spread.
    """
    n = len(scores)
    place = -int(-(n + 1) * (1 - false_alarm_rate) // 1)
    ordered = scores.sort().values
    if place <= n:
        return float(ordered[place - 1])
    return float(ordered[-1] + 0.5 * scores.std(correction=0))


def fit_detector(embedding: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the tensors `ood_features` takes, from training embeddings (N, D) and their labels (N,).

    The shared covariance is shrunk towards its mean variance (Ledoit and Wolf, 2004, with a fixed share that grows
    as samples get few), so that it can be inverted with fewer samples than dimensions.
    """
    embedding = embedding.double()
    N = len(embedding)
    centre = embedding.mean(0)
    classes = labels.unique()
    means = torch.stack([embedding[labels == label].mean(0) for label in classes])                      # (K', D)
    place = torch.searchsorted(classes, labels)
    whitening = whitening_of(embedding - means[place], N - len(classes))                                # (D, D)
    kept = torch.randperm(N, generator=torch.Generator().manual_seed(0))[:BANK_SIZE]
    return {"ood_bank": F.normalize(embedding[kept], dim=-1).half(),
            "ood_means": ((means - centre) @ whitening).float(), "ood_whitening": whitening.float(),
            "ood_mean": centre.float(), "ood_neighbours": torch.tensor(max(1, min(10, N // (5 * len(classes)))))}


def whitening_of(residual: Tensor, degrees: int) -> Tensor:
    """Return the matrix (D, D) that makes residuals (N, D) white under their shrunk covariance."""
    N, D = residual.shape
    covariance = residual.T @ residual / max(1, degrees)
    share = D / (D + N)
    covariance = (1 - share) * covariance + share * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(
        D, dtype=torch.double)
    return torch.linalg.inv(torch.linalg.cholesky(covariance)).T


def fit_stem(train: Tensor, val: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit the second sign, how a clip looks to a pretrained stem, from stem embeddings (N, C) of known clips.

    Returns:
        What goes into `calibration["ood"]` beside the first sign, and the tensors `stem_distance` takes.
    """
    train = train.double()
    centre = train.mean(0)
    tensors = {"ood_stem_mean": centre.float(),
               "ood_stem_whitening": whitening_of(train - centre, len(train) - 1).float()}
    known = stem_distance(val, tensors)
    return {"stem_threshold": threshold_of(known, STEM_FALSE_ALARM_RATE),
            "stem_false_alarm_rate": STEM_FALSE_ALARM_RATE}, tensors
