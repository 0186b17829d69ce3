"""Accuracy of classifiers of clips: one answer per video over its views, every number with its
interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.sources import CONFIG
from marey.datasets.index import DatasetIndex
from marey.datasets.open import choose_split
from marey.errors import UserError
from marey.files import read_json, write_json
from marey.inference.answers import AnswerOptions, Answers
from marey.metrics.accuracy import (
    confusion_matrix,
    mean_class_accuracy,
    per_class_table,
    topk_correct,
)
from marey.metrics.calibration import (
    brier_score,
    calibration_noise_floor,
    expected_calibration_error,
    ood_score,
)
from marey.metrics.intervals import interval_unit, proportion_interval
from marey.metrics.selective import aurc, coverage_at_accuracy, rejection_threshold


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How to evaluate."""

    split: str | None = None
    """Split to use; None takes "test", else "val", else everything."""
    dataset: str | None = None
    """Official layout by name; None recognises it."""
    split_by: str | None = None
    """Regular expression that reads the split from file names."""
    views: tuple[int, int] = (1, 1)
    """Temporal and spatial views per video: (1, 3), (10, 3), ..."""
    fusion: str = "probabilities"
    """What is averaged over views: "probabilities", or "logits" as TimeSformer's and DirecFormer's
    code does."""
    batch_size: int = 8
    """Clips of one forward pass."""
    workers: int = 0
    """Processes that decode."""
    device: str = "cpu"
    """Torch device."""
    unseen: bool = False
    """The data has classes the model was never trained on (label-embedding models)."""
    hubness: bool = False
    """With `unseen`: correct similarities for names that are near to everything (CSLS)."""
    seed: int = 0
    """Seed of what the task draws."""

    def choose_split(self, data: str | Path) -> DatasetIndex:
        """Open the data and take the split to evaluate on, see
        `marey.datasets.open.choose_split`."""
        return choose_split(data, split=self.split, dataset=self.dataset, split_by=self.split_by)

    def pass_options(self, **changes: Any) -> AnswerOptions:
        """Return how the model is shown the videos."""
        given = {
            "views": self.views,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "workers": self.workers,
            "device": self.device,
        }
        return AnswerOptions(**{**given, **changes})


@dataclass(kw_only=True)
class Predictions:
    """The answers of one model, fused over views and calibrated; enough to compute every number
    again."""

    videos: list[str]
    """Names below the data's root, in the data's order, readable ones only."""
    labels: list[int]
    """Class numbers of the model."""
    groups: list[str | None]
    """Group of each video (scene, person), None where the data names none."""
    logits: Tensor
    """float, (N, K): mean over views, the logits whose softmax is the uncalibrated answer."""
    probs: Tensor
    """float, (N, K): probabilities at the model's temperature (1 where none was fitted), fused over
    views."""
    class_names: list[str]
    ood: Tensor | None = None
    """float, (N,): unknown score, mean over views."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}] for what could not be read."""
    seen: list[bool] | None = None
    """Whether the model was trained on each video; None where its checkpoint does not say."""


def score_answers(
    answers: Answers, checkpoint: Checkpoint, *, fusion: str = "probabilities"
) -> Predictions:
    """Fuse stored answers over views, calibrate them, and number their labels.

    Args:
        checkpoint: whose temperature and OOD detector apply.
        fusion: what is averaged, see `EvaluateOptions`.

    Raises:
        UserError: if a label is not among the model's classes.
    """
    numbers = {name: number for number, name in enumerate(answers.class_names)}
    check_labels(answers.labels, answers.class_names, model=answers.model)
    calibrated = answers.logits / checkpoint.temperature  # (N, V, K)
    probs = calibrated.mean(1).softmax(-1) if fusion == "logits" else calibrated.softmax(-1).mean(1)

    ood = None
    if (checkpoint.calibration or {}).get("ood") and answers.embedding is not None:
        scores = ood_score(
            answers.embedding.flatten(0, 1),
            answers.logits.flatten(0, 1),
            checkpoint.calibration or {},
            checkpoint.tensors,
        )
        ood = scores.unflatten(0, answers.logits.shape[:2]).mean(1)
    return Predictions(
        videos=answers.videos,
        labels=[numbers[str(label)] for label in answers.labels],
        groups=answers.groups,
        logits=answers.logits.mean(1),
        probs=probs,
        class_names=answers.class_names,
        ood=ood,
        unreadable=answers.unreadable,
    )


def check_labels(
    labels: Iterable[str | None],
    class_names: Sequence[str],
    *,
    model: str,
    remedy: str = "teach them with 'marey teach', or rank them with --unseen",
) -> None:
    """Check that a model has a class for every label.

    Args:
        remedy: what the error advises.

    Raises:
        UserError: if it has not.
    """
    absent = sorted(set(map(str, labels)) - set(class_names))
    if absent:
        listed = ", ".join(absent[:10]) + (
            f" and {len(absent) - 10} more" if len(absent) > 10 else ""
        )
        raise UserError(
            f"labels the model {model} was not trained on: {listed} (it knows: "
            f"{', '.join(list(class_names)[:10])}{', ...' if len(class_names) > 10 else ''}); "
            f"{remedy}"
        )


def report_of(answers: Predictions) -> dict[str, Any]:
    """Compute every number from the answers; calling it on saved answers gives the same numbers.

    Intervals are those of `proportion_interval`, over groups where the data names enough of them.
    "majority": accuracy of always answering the most frequent class. "answers_at_95": which share
    of the videos, the most confident ones, is answered at 95 % accuracy, and from which probability
    on; None where no share is.
    """
    labels = torch.tensor(answers.labels)
    first, five = (topk_correct(answers.probs, labels, k) for k in (1, 5))
    confidence = answers.probs.max(1).values
    confusion = confusion_matrix(answers.probs.argmax(1), labels, len(answers.class_names))
    report: dict[str, Any] = {
        "top1": first.double().mean().item(),
        "top5": five.double().mean().item(),
        "mean_class_accuracy": mean_class_accuracy(confusion),
        "num_videos": len(labels),
        "majority": labels.bincount().max().item() / len(labels),
        "top1_interval": list(proportion_interval(first, answers.groups)),
        "top5_interval": list(proportion_interval(five, answers.groups)),
        "interval": "95% over " + interval_unit(answers.groups),
        "calibration_error": expected_calibration_error(answers.probs, labels),
        "calibration_noise_floor": calibration_noise_floor(confidence, draws=200),
        "brier": brier_score(answers.probs, labels),
        "aurc": aurc(confidence, first),
        "answers_at_95": coverage_at_accuracy(confidence, first, 0.95),
        "unreadable": answers.unreadable,
        "num_unreadable": len(answers.unreadable),
        "per_class": per_class_table(confusion, answers.class_names),
        "confusion": {"classes": answers.class_names, "counts": confusion.tolist()},
    }
    if answers.seen is not None and any(answers.seen):
        report["seen_in_training"] = _seen_part(answers, first)
    if answers.ood is not None:
        report["mean_ood_score"] = answers.ood.double().mean().item()
    return report


def _seen_part(answers: Predictions, first: Tensor) -> dict[str, Any]:
    """Return which of the videos the model was trained on, and the accuracy on the others."""
    seen = torch.tensor(answers.seen)
    names = [video for video, known in zip(answers.videos, seen.tolist(), strict=True) if known]
    clean, others = None, "there are no others: this is no measure of accuracy"
    if not bool(seen.all()):
        groups = [g for g, known in zip(answers.groups, seen.tolist(), strict=True) if not known]
        low, high = proportion_interval(first[~seen], groups)
        top1 = first[~seen].double().mean().item()
        clean = {
            "top1": top1,
            "top1_interval": [low, high],
            "interval": "95% over " + interval_unit(groups),
            "num_videos": len(groups),
        }
        others = f"on the {len(groups)} others: top-1 {top1:.3f} [{low:.3f}, {high:.3f}]"
    text = (
        f"LEAKED: {len(names)} of these {len(seen)} videos are training videos of this model "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}); {others}"
    )
    return {"num_videos": len(names), "videos": names, "clean": clean, "text": text}


def store_rejection(
    folder: str | Path,
    answers: Predictions,
    data: str,
    *,
    target_accuracy: float | None = None,
    min_coverage: float | None = None,
) -> dict[str, Any]:
    """Store in a checkpoint below which probability its answers are not to be believed.

    Args:
        folder: of the checkpoint.
        answers: to videos that the model was not trained on; training videos among them are left
            out.
        data: what they are, for the record.
        target_accuracy, min_coverage: see `rejection_threshold`.

    Returns:
        What is stored as `calibration["rejection"]`.

    Raises:
        UserError: if the checkpoint is no folder of ours, or the target cannot be reached.
    """
    config = Path(folder) / CONFIG
    if not config.is_file():
        raise UserError(
            f"{folder}: a threshold is stored in the folder of a checkpoint, which this is not"
        )
    new = torch.tensor([not known for known in answers.seen or [False] * len(answers.videos)])
    if not bool(new.any()):
        raise UserError(
            f"{data}: the model was trained on all of these videos; a threshold needs new ones"
        )
    right = topk_correct(answers.probs, torch.tensor(answers.labels), 1)
    found = {
        "data": data,
        **rejection_threshold(
            answers.probs.max(1).values[new],
            right[new],
            target_accuracy=target_accuracy,
            min_coverage=min_coverage,
        ),
    }
    stored = read_json(config)
    stored["calibration"] = {**(stored.get("calibration") or {}), "rejection": found}
    write_json(config, stored)
    return found
