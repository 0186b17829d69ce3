"""Controls: what is reached without seeing what people do.

A score beside its control says how much of it comes from the action. The metadata control sees only
width, height, frames and rate of a file; the single-frame control sees one picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError, import_extra
from marey.video.decode import open_video

FACTS = ("width", "height", "frames", "frames per second", "seconds", "width / height")
NEIGHBOURS = 3


def metadata_of(sample: Sample, index: DatasetIndex) -> list[float]:
    """Return `FACTS` of one readable video.

    Raises:
        VideoError: if it cannot be read.
    """
    if sample.row is not None:
        return [float(0)] * len(FACTS)
    with open_video(sample.path) as reader:
        first, stop = reader.frame_range(sample.start_seconds, sample.end_seconds)
        seconds = reader.end_seconds(stop - 1) - reader.frame_seconds[first]
        return [
            reader.width,
            reader.height,
            stop - first,
            reader.fps,
            seconds,
            reader.width / reader.height,
        ]


def metadata_predictions(facts: Tensor, labels: Tensor, folds: Tensor) -> dict[str, Tensor]:
    """Answer every video from its metadata by classifiers that never saw its fold.

    Args:
        facts: (N, 6), `FACTS`.
        labels: int64 (N,).
        folds: int64 (N,).

    Returns:
        Classifier -> predicted class numbers (N,): "nearest neighbours", "logistic regression", and
        "random forest" where scikit-learn (extra 'plots') is installed.
    """
    classifiers = {"nearest neighbours": _neighbours, "logistic regression": _logistic}
    try:
        import_extra("sklearn.ensemble", "plots", "the random forest")
        classifiers["random forest"] = _forest
    except UserError:
        pass
    predicted = {name: torch.zeros_like(labels) for name in classifiers}
    for fold in folds.unique():
        known, held = folds != fold, folds == fold
        mean, std = facts[known].mean(0), facts[known].std(0, correction=0).clamp(min=1e-6)
        train, test = (facts[known] - mean) / std, (facts[held] - mean) / std
        for name, classify in classifiers.items():
            predicted[name][held] = classify(train, labels[known], test)
    return predicted


def _neighbours(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    nearest = torch.cdist(test, train).topk(min(NEIGHBOURS, len(train)), largest=False).indices
    return labels[nearest].mode(1).values


def _logistic(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    classes = int(labels.max()) + 1
    weight = torch.zeros(train.shape[1] + 1, classes, dtype=torch.double, requires_grad=True)
    ones = torch.ones(len(train), 1)
    rows = torch.cat((train, ones), 1).double()
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(rows @ weight, labels) + 0.5 * weight[:-1].pow(2).sum() / len(rows)
        value.backward()
        return value

    optimizer.step(loss)
    asked = torch.cat((test, torch.ones(len(test), 1)), 1).double()
    return (asked @ weight.detach()).argmax(1)


def _forest(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=100, random_state=0)
    forest.fit(train.numpy(), labels.numpy())
    return torch.from_numpy(forest.predict(test.numpy()))


def majority(labels: Sequence[str]) -> dict[str, Any]:
    """Return the most frequent class and its share."""
    name, count = Counter(labels).most_common(1)[0]
    return {"class": name, "accuracy": count / len(labels)}
