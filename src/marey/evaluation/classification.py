"""Evaluate a checkpoint on labelled videos: one answer per video over its views, every number with its interval.

`evaluate` answers for classifiers of clips. What a model can do besides adds its numbers through `ADDITIONS`. Models
that take no clips (frame features, boxes) are scored by the evaluator of the task they were trained for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from marey.datasets.clips import VideoViews
from marey.errors import UserError
from marey.metrics.accuracy import (
    bootstrap_interval,
    confusion_matrix,
    enough_groups,
    mean_class_accuracy,
    per_class_table,
    topk_correct,
)
from marey.metrics.calibration import expected_calibration_error, ood_score

if TYPE_CHECKING:
    from marey.checkpoints.folder import Checkpoint
    from marey.datasets import DatasetIndex


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
    """What is averaged over views: "probabilities", or "logits" as TimeSformer's and DirecFormer's code does."""
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
    """Seed of bootstrap and of what the task draws."""


@dataclass(kw_only=True)
class Predictions:
    """The fused answers of one model for the videos of one data set; enough to compute every number again."""

    videos: list[str]
    """Names below the data's root, in the data's order, readable ones only."""
    labels: list[int]
    """Class numbers of the model."""
    groups: list[str | None]
    """Group of each video (scene, person), None where the data names none."""
    logits: Tensor
    """float, (N, K): mean over views, the logits whose softmax is the uncalibrated answer."""
    probs: Tensor
    """float, (N, K): probabilities at the model's temperature (1 where none was fitted), fused over views."""
    class_names: list[str]
    ood: Tensor | None = None
    """float, (N,): unknown score, mean over views."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}] for what could not be read."""


@torch.inference_mode()
def predict_index(checkpoint: Checkpoint, index: DatasetIndex, options: EvaluateOptions, *,
                  tick: Callable[[int, int], None] | None = None) -> Predictions:
    """Answer every readable video of an index by the mean over its views, and name the unreadable.

    Raises:
        UserError: if the checkpoint is no classifier of clips, the data has labels it does not know, or nothing can
            be read.
    """
    if not checkpoint.class_names or checkpoint.preprocess is None:
        raise UserError(f"{checkpoint.source}: no class names or no preprocessing, so it cannot be scored on labels; "
                        "evaluate a checkpoint written by 'marey train'")
    numbers = label_numbers(index, checkpoint.class_names, checkpoint.source)
    model = checkpoint.model.to(options.device).eval()
    temperature = float((checkpoint.calibration or {}).get("temperature", 1.0))
    loader = DataLoader(VideoViews(index, checkpoint.preprocess, options.views), batch_size=None,
                        num_workers=options.workers)
    kept: list[int] = []
    unreadable, logits, probs, ood = [], [], [], []
    for place, outputs in enumerate(_outputs(model, loader, options)):
        if tick is not None:
            tick(place + 1, len(index))
        if isinstance(outputs, str):
            unreadable.append({"video": index.relative_path(index.samples[place]), "error": outputs})
            continue
        kept.append(place)
        logits.append(outputs["logits"].mean(0))
        fused = (logits[-1] / temperature).softmax(-1) if options.fusion == "logits" else (
            (outputs["logits"] / temperature).softmax(-1).mean(0))
        probs.append(fused)
        if (checkpoint.calibration or {}).get("ood") and "embedding" in outputs:
            ood.append(ood_score(outputs["embedding"], outputs["logits"], checkpoint.calibration or {},
                                 checkpoint.tensors).mean())
    if not kept:
        raise UserError(f"{index.root}: none of its {len(index)} videos can be read (the first: "
                        f"{unreadable[0]['error']})")
    samples = [index.samples[place] for place in kept]
    return Predictions(videos=[index.relative_path(sample) for sample in samples],
                       labels=[numbers[str(sample.label)] for sample in samples],
                       groups=[sample.group for sample in samples], logits=torch.stack(logits),
                       probs=torch.stack(probs), class_names=list(checkpoint.class_names),
                       ood=torch.stack(ood) if ood else None, unreadable=unreadable)


def _outputs(model: torch.nn.Module, items: Any, options: EvaluateOptions) -> Iterator[dict[str, Tensor] | str]:
    """Yield per video the CPU outputs of its views, or the reason it cannot be read; views of videos share batches."""
    waiting: list[dict[str, Any]] = []
    count = 0
    for item in items:
        waiting.append(item)
        count += len(item.get("views", ()))
        if count >= options.batch_size:
            yield from _flush(model, waiting, options)
            waiting, count = [], 0
    yield from _flush(model, waiting, options)


def _flush(model: torch.nn.Module, items: list[dict[str, Any]],
           options: EvaluateOptions) -> Iterator[dict[str, Tensor] | str]:
    readable = [item["views"] for item in items if "views" in item]
    if readable:
        clips = torch.cat(readable)
        parts = [model(part.to(options.device)) for part in clips.split(options.batch_size)]
        joined = {key: torch.cat([part[key] for part in parts]).float().cpu()
                  for key in ("logits", "embedding", "label_embedding") if key in parts[0]}
    start = 0
    for item in items:
        if "error" in item:
            yield item["error"]
        else:
            stop = start + len(item["views"])
            yield {key: value[start:stop] for key, value in joined.items()}
            start = stop


def label_numbers(index: DatasetIndex, class_names: Sequence[str], model: str) -> dict[str, int]:
    """Return label -> class number of the model, for the labels of an index.

    Raises:
        UserError: if a label is not among the model's classes.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    absent = sorted({str(sample.label) for sample in index.samples} - set(numbers))
    if absent:
        listed = ", ".join(absent[:10]) + (f" and {len(absent) - 10} more" if len(absent) > 10 else "")
        raise UserError(f"{index.root}: labels the model {model} was not trained on: {listed} "
                        f"(it knows: {', '.join(list(class_names)[:10])}{', ...' if len(class_names) > 10 else ''}); "
                        "train on them with 'marey train finetune_folder', or rank them with --unseen")
    return numbers


def report_of(answers: Predictions, *, seed: int = 0) -> dict[str, Any]:
    """Compute every number from the answers; calling it on saved answers gives the same numbers.

    Intervals are 95% percentile bootstrap over videos, or over groups where the data names enough groups.
    """
    labels = torch.tensor(answers.labels)
    first, five = (topk_correct(answers.probs, labels, k) for k in (1, 5))
    confusion = confusion_matrix(answers.probs.argmax(1), labels, len(answers.class_names))
    groups = answers.groups if enough_groups(answers.groups) else None
    report: dict[str, Any] = {
        "top1": first.double().mean().item(), "top5": five.double().mean().item(),
        "mean_class_accuracy": mean_class_accuracy(confusion), "num_videos": len(labels),
        "top1_interval": list(bootstrap_interval(first, seed=seed, groups=groups)),
        "top5_interval": list(bootstrap_interval(five, seed=seed, groups=groups)),
        "interval": "95% bootstrap over " + ("groups" if groups else "videos"),
        "calibration_error": expected_calibration_error(answers.probs, labels),
        "unreadable": answers.unreadable, "num_unreadable": len(answers.unreadable),
        "per_class": per_class_table(confusion, answers.class_names),
        "confusion": {"classes": answers.class_names, "counts": confusion.tolist()}}
    if answers.ood is not None:
        report["mean_ood_score"] = answers.ood.double().mean().item()
    return report
