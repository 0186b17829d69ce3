"""At the end of training: fit the temperature and the unknown-detector on held-out videos, and store them.

The temperature is fitted on the validation videos. The unknown-detector learns what known samples look like from
training clips, and places its threshold by the scores of validation clips: by construction about `FALSE_ALARM_RATE` of
known held-out videos lie beyond it. Its miss rate can only be measured on actions never trained on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from marey.files import write_json
from marey.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    ood_features,
    ood_score,
    stem_distance,
)
from marey.models.timesformer import with_stem

if TYPE_CHECKING:
    from marey.training.loop import Run

FALSE_ALARM_RATE = 0.05
"""Share of known held-out samples that may be called unknown."""
STEM_FALSE_ALARM_RATE = 0.02
"""The same for the look of a clip alone, where the model has a pretrained stem."""
MAX_FITTED = 2000
"""Most training clips the detector looks at."""
BANK_SIZE = 512
"""Most training embeddings stored for the nearest-neighbour sign."""


def calibrate_run(run: Run) -> None:
    """Fit on the best checkpoint's embeddings and rewrite best/ and last/ with the result (main process).

    Nothing is stored, and the user is told, where there are no held-out videos.
    """
    from marey.checkpoints.load import load_checkpoint

    if run.task.val_data is None or not (run.out / "best").is_dir():
        run.progress.say("no held-out videos: temperature and unknown-detector are not fitted")
        return
    for name in ("best", "last"):
        model = load_checkpoint(run.out / name).model.to(run.accelerator.device)
        train, val = embed(run, model, run.task.train_data, MAX_FITTED), embed(run, model, run.task.val_data, None)
        if len(train["label"]) == 0 or len(val["label"]) == 0:
            return
        calibration, tensors = fit_trust(train, val)
        run.save_checkpoint(name, model, calibration, tensors)
    shown = calibration["temperature"], calibration["ece_before"], calibration["ece"]
    run.progress.say("temperature {:.2f} (calibration error {:.3f} -> {:.3f})".format(*shown))


@torch.no_grad()
def embed(run: Run, model: nn.Module, data: Any, limit: int | None) -> dict[str, Tensor]:
    """Return "embedding" (N, D), "logits" (N, K) and "label" (N,) of a data set, evaluation preprocessing."""
    plain = without_augmentation(data)
    chosen = range(len(plain)) if limit is None else torch.randperm(
        len(plain), generator=torch.Generator().manual_seed(0))[:limit].tolist()
    keys = [(0, place) for place in chosen]
    size = run.config.train.eval_batch_size or run.part_size
    loader = DataLoader(plain, batch_sampler=[keys[n:n + size] for n in range(0, len(keys), size)],
                        collate_fn=run.task.collate, num_workers=run.config.train.workers)
    model.eval()
    found: dict[str, list[Tensor]] = {"embedding": [], "logits": [], "label": []}
    for batch in loader:
        if "clip" in batch:
            clip, stem = with_stem(model, batch["clip"].to(run.accelerator.device))
            outputs = model(clip)
            if stem is not None:
                found.setdefault("stem", []).append(stem.cpu())
            found["embedding"].append(outputs["embedding"].float().cpu())
            found["logits"].append(outputs["logits"].float().cpu())
            found["label"].append(batch["label"])
    return {name: torch.cat(parts) if parts else torch.zeros(0) for name, parts in found.items()}


def without_augmentation(data: Any) -> Any:
    """Return the same clips under evaluation preprocessing, where the data set knows how."""
    from marey.datasets.clips import ClipDataset

    return ClipDataset(data.index, data.preprocess) if isinstance(data, ClipDataset) else data


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


def store_calibration(folder: Path, changes: dict[str, Any]) -> None:
    """Merge values into the calibration of a checkpoint folder, such as a measured miss rate; weights stay."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["calibration"] = {**(config.get("calibration") or {}), **changes}
    write_json(path, config)
