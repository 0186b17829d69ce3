"""The metadata control beside an evaluation: what size, length and rate alone say of its videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from marey.datasets.index import DatasetIndex
from marey.errors import VideoError
from marey.teaching.controls import metadata_of, metadata_predictions
from marey.teaching.folds import MAX_FOLDS, folds_of

MOST_VIDEOS = 5000
"""Of more the control is not measured: every file would be opened once more."""


def metadata_beside(
    index: DatasetIndex,
    videos: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str | None],
) -> dict[str, Any] | None:
    """Cross-validate the metadata control on the videos of an evaluation, groups kept together.

    Args:
        index: the data.
        videos: names of the videos that were answered.
        labels: of these.
        groups: of these; a video without one is its own.

    Returns:
        "accuracy" of the best of its classifiers, "classifier", and the "accuracies" of all; None
        for packed rows, which have no metadata, for fewer than two folds, and for more than
        `MOST_VIDEOS`.
    """
    by_name = {index.relative_path(sample): sample for sample in index.samples}
    samples = [by_name[video] for video in videos]
    packed = any(sample.row is not None for sample in samples)
    if packed or not 4 <= len(samples) <= MOST_VIDEOS or len(set(labels)) < 2:
        return None
    try:
        facts = torch.tensor([metadata_of(sample, index) for sample in samples])
    except VideoError:
        return None
    own = [group or f"video {number}" for number, group in enumerate(groups)]
    folds = folds_of(labels, own, MAX_FOLDS)
    if int(folds.max()) == 0:
        return None
    names = sorted(set(labels))
    targets = torch.tensor([names.index(label) for label in labels])
    predicted = metadata_predictions(facts, targets, folds)
    accuracies = {
        name: (answers == targets).double().mean().item() for name, answers in predicted.items()
    }
    best = max(accuracies, key=lambda name: accuracies[name])
    return {"accuracy": accuracies[best], "classifier": best, "accuracies": accuracies}
