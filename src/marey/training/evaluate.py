"""Evaluate a checkpoint on labelled videos: one answer per video over its views, every number with its interval.

`evaluate` answers for classifiers of clips. What a model can do besides adds its numbers through `ADDITIONS`. Models
that take no clips (frame features, boxes) are scored by the evaluator of the task they were trained for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from marey.errors import UserError, VideoError
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
    from marey.checkpoints import Checkpoint
    from marey.datasets import DatasetIndex

ADDITIONS: dict[str, str] = {"permutations": "marey.training.tasks.order:evaluate_more"}
"""Tensor in a checkpoint that tells of an ability -> function(checkpoint, data, options) -> dict for the report."""

UNSEEN = "marey.training.unseen:evaluate_unseen"
"""Function(checkpoint, data, options) -> dict: the whole report of `marey evaluate --unseen`."""


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
    """float, (N, K): calibrated probabilities, fused over views."""
    class_names: list[str]
    ood: Tensor | None = None
    """float, (N,): unknown score, mean over views."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """[{"video", "error"}] for what could not be read."""


def evaluate(model: str | Path, data: str | Path, options: EvaluateOptions = EvaluateOptions(), *,
             tick: Callable[[int, int], None] | None = None) -> tuple[dict[str, Any], Predictions | None]:
    """Evaluate a run, a checkpoint folder or a named model.

    Args:
        tick: called with (done, total) videos.

    Returns:
        The report in JSON types, and the answers (None where the task's own evaluation keeps none).

    Raises:
        UserError: if the model has no class names, or the data has labels the model does not know.
    """
    from marey.checkpoints import load_checkpoint

    source = checkpoint_of(model)
    checkpoint = load_checkpoint(source)
    head = {"model": str(source), "data": str(data)}
    if options.unseen:
        if "label_embeddings" not in checkpoint.tensors:
            raise UserError(f"{source}: --unseen needs a model with a label-embedding head; "
                            "marey-mini and models of recipes sevitar_... have one")
        return {**head, **_function(UNSEEN)(checkpoint, data, options)}, None
    if (checkpoint.extra or {}).get("task") in ("features", "detection"):
        return {**head, **evaluate_by_task(checkpoint, data, options)}, None
    index = choose_split(data, options)
    answers = predict_index(checkpoint, index, options, tick=tick)
    report = {**head, "split": options.split or "".join(index.splits) or None, "manifest_hash": index.manifest_hash,
              **report_of(answers, seed=options.seed), "views": f"{options.views[0]}x{options.views[1]}",
              "fusion": options.fusion, "calibration": checkpoint.calibration,
              "preprocess": checkpoint.preprocess.to_dict() if checkpoint.preprocess else None,
              "arguments": checkpoint.arguments, "config": (checkpoint.extra or {}).get("config")}
    for tensor, function in ADDITIONS.items():
        if tensor in checkpoint.tensors:
            report.update(_function(function)(checkpoint, data, options))
    return report, answers


def evaluate_by_task(checkpoint: Checkpoint, data: str | Path, options: EvaluateOptions) -> dict[str, Any]:
    """Score a model that takes no clips by the evaluator of its task, on the validation part of `data`.

    `--split all` takes every sample where the task holds validation samples out by itself; a detection task takes the
    split of that name.

    Raises:
        UserError: if the checkpoint does not say how it was trained, or the data has other classes.
    """
    from marey.training import loop
    from marey.training.config import TrainConfig
    from marey.training.tasks import build_task

    saved = (checkpoint.extra or {}).get("config")
    if saved is None:
        raise UserError(f"{checkpoint.source}: does not say how it was trained, so it cannot be scored; "
                        "evaluate a checkpoint written by 'marey train'")
    config = TrainConfig.from_dict(saved)
    arguments = dict(config.data.arguments)
    if options.split not in (None, "all") and config.objective.kind == "detection":
        arguments["val_split"] = options.split
    config = replace(config, data=replace(
        config.data, path=str(data), arguments=arguments, preprocess=config.data.preprocess or checkpoint.preprocess,
        val_fraction=1.0 if options.split == "all" else config.data.val_fraction))
    task = build_task(config)
    if list(task.class_names) != list(checkpoint.class_names):
        raise UserError(f"{data}: has {len(task.class_names)} classes, other than the {len(checkpoint.class_names)} of "
                        f"{checkpoint.source}; evaluate on data with the same label list")
    accelerator = loop.make_accelerator(replace(config, train=replace(config.train, device="cpu")))
    evaluator = loop.evaluate(checkpoint.model.to(accelerator.device), task, accelerator,
                              batch_size=options.batch_size, workers=options.workers)
    return {"task": config.objective.kind, "main": evaluator.main, "num_samples": len(task.val_data or ()),
            **{key: value for key, value in evaluator.compute().items() if not isinstance(value, Tensor)},
            "config": config.to_dict()}


def checkpoint_of(model: str | Path) -> str | Path:
    """Return what `load_checkpoint` takes: for a run's folder its best checkpoint, else `model` itself."""
    for name in ("best", "last"):
        if (Path(model) / name / "config.json").is_file():
            return Path(model) / name
    return model


def _function(place: str) -> Callable[..., dict[str, Any]]:
    module, function = place.split(":")
    return getattr(importlib.import_module(module), function)


def choose_split(data: str | Path, options: EvaluateOptions) -> DatasetIndex:
    """Open the data and take the split to evaluate on; samples without label are left out.

    Raises:
        UserError: if the split is empty or nothing is labelled.
    """
    from marey.datasets import open_dataset
    from marey.training.tasks.classification import labelled

    index = open_dataset(data, dataset=options.dataset, split_by=options.split_by)
    name = options.split or next((split for split in ("test", "val") if split in index.splits), None)
    return labelled(index.split(name) if name is not None else index)


class VideoViews(torch.utils.data.Dataset[dict[str, Any]]):
    """All views of each video of an index, preprocessed."""

    def __init__(self, index: DatasetIndex, preprocess: Any, views: tuple[int, int]) -> None:
        self.index, self.preprocess, self.views = index, preprocess, views

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Return {"views": (V, T, C, S, S)}, or {"error": str}."""
        from marey.datasets.clips import read_frames
        from marey.video.decode import open_video

        sample, (temporal, spatial) = self.index.samples[place], self.views
        try:
            if sample.row is not None:                                     # packed: the frames are already sampled
                return {"views": self.preprocess.clip(read_frames(self.index, sample, self.preprocess), spatial)}
            with open_video(sample.path) as reader:
                views, _ = self.preprocess.views(reader, temporal, spatial, start_seconds=sample.start_seconds,
                                                 end_seconds=sample.end_seconds)
            return {"views": views}
        except VideoError as error:
            return {"error": str(error)}


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
