"""Evaluation of a checkpoint or run by its heads and task: classes, order, unseen classes, persons,
features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.sources import best_of_run
from marey.datasets.index import DatasetIndex
from marey.datasets.label_names import labels_as_classes
from marey.datasets.poses import holds_windows
from marey.datasets.seen import positions_seen, seen_in_training
from marey.errors import UserError
from marey.evaluation.classification import (
    EvaluateOptions,
    Predictions,
    check_labels,
    report_of,
    score_answers,
)
from marey.evaluation.order import backwards_of, describe_order_accuracy, measure_order
from marey.evaluation.pose_videos import score_pose_videos
from marey.evaluation.zero_shot import unseen_classes, unseen_report
from marey.inference.answers import Answers, answer_videos
from marey.inference.poses import PosePredictor
from marey.training import validate
from marey.training.config import TrainConfig
from marey.training.distributed import make_accelerator
from marey.training.task import Data
from marey.training.tasks import build_task


def evaluate(
    model: str | Path,
    data: str | Path,
    options: EvaluateOptions = EvaluateOptions(),
    *,
    tick: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], Predictions | None]:
    """Evaluate a run, a checkpoint folder or a named model.

    Args:
        tick: called with (done, total) videos.

    Returns:
        The report in JSON types, and the fused answers (None where the task's own evaluation keeps
        none).

    Raises:
        UserError: if the model has no class names, or the data has labels the model does not know.
    """
    source = checkpoint_of(model)
    checkpoint = load_checkpoint(source)
    head: dict[str, Any] = {"model": str(source), "data": str(data)}
    if options.unseen:
        return {**head, **evaluate_unseen(checkpoint, data, options, tick)}, None
    if checkpoint.pose_sampling is not None and not holds_windows(data):
        index = options.choose_split(data)
        predictor = PosePredictor(checkpoint, device=options.device)
        manifest_hash, split = index.manifest_hash, options.split or "".join(index.splits) or None
        index, renamed = labels_as_classes(index, predictor.class_names)
        predicted, report = score_pose_videos(predictor, index, tick=tick)
        head |= {"split": split, "manifest_hash": manifest_hash, **_read_as(index, renamed)}
        return {**head, **report}, predicted
    if checkpoint.task != "clips":
        return {**head, **evaluate_by_task(checkpoint, data, options)}, None

    index = options.choose_split(data)
    if not checkpoint.class_names:
        raise UserError(
            f"{checkpoint.source}: has no class names, so it cannot be scored on labels; evaluate "
            "a checkpoint written by 'marey train'"
        )
    manifest_hash = index.manifest_hash
    index, renamed = labels_as_classes(index, checkpoint.class_names)
    check_labels(
        (sample.label for sample in index.samples), checkpoint.class_names, model=checkpoint.source
    )

    # The order is measured on the centre view alone; where that is the only view, one pass answers
    # both questions.
    has_order = "permutations" in checkpoint.tensors
    centre_only = options.views == (1, 1)
    shuffling = (
        {"views": (1, 1), "shuffles": 4, "backwards": backwards_of(checkpoint)} if has_order else {}
    )
    answers = answer_videos(
        checkpoint,
        index,
        options.pass_options(still=True, **(shuffling if centre_only else {})),
        tick=tick,
        resumable=True,
    )

    scored = score_answers(answers, checkpoint, fusion=options.fusion)
    seen = seen_in_training(index, checkpoint.tensors)
    if seen is not None:
        names = {index.relative_path(index.samples[position]) for position in seen.positions}
        scored.seen = [video in names for video in scored.videos]
    report = {
        **head,
        "split": options.split or "".join(index.splits) or None,
        "manifest_hash": manifest_hash,
        **_read_as(index, renamed),
        **report_of(scored),
        "controls": {"one_picture": one_picture(answers, scored)},
        "views": f"{options.views[0]}x{options.views[1]}",
        "fusion": options.fusion,
        "calibration": checkpoint.calibration,
        "preprocess": checkpoint.clip_preprocess.to_dict(),
        "arguments": checkpoint.arguments,
        "config": checkpoint.extra.get("config"),
    }
    if has_order:
        if not centre_only:
            answers = answer_videos(checkpoint, index, options.pass_options(**shuffling))
        report["order"] = order_part(answers)
    return report, scored


def _read_as(index: DatasetIndex, renamed: dict[str, str]) -> dict[str, Any]:
    """Return what the report says of how the data were read: what had to be decided, and labels
    that are another form of a class."""
    said = {"data_read_as": {"text": index.note}} if index.note else {}
    if renamed:
        listed = ", ".join(f"'{label}' as '{name}'" for label, name in renamed.items())
        text = f"labels read as the model's: {listed}"
        return {**said, "labels_read_as": {"classes": renamed, "text": text}}
    return said


def one_picture(answers: Answers, scored: Predictions) -> dict[str, Any] | None:
    """Return how often the same model is right about one picture of each video, held still; None of
    a model that also reads what is measured of the whole video."""
    still = answers.outputs.get("still_logits")
    if still is None:
        return None
    right = still[:, 0].argmax(1) == torch.tensor(scored.labels)
    return {"accuracy": right.double().mean().item()}


def order_part(answers: Answers) -> dict[str, Any]:
    """Return what the report says of the order: mean OrderAcc over the videos x shuffles, and
    chance."""
    try:
        found = measure_order(answers)
    except UserError as error:  # the other numbers stand
        return {"order_accuracy": None, "text": f"OrderAcc: {error}"}
    unreadable = [entry["error"] for entry in answers.unreadable]
    return {**found, "unreadable": unreadable, "text": describe_order_accuracy(found)}


def evaluate_unseen(
    checkpoint: Checkpoint,
    data: str | Path,
    options: EvaluateOptions,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Return the report of `marey evaluate --unseen`.

    Raises:
        UserError: if the model has no label-embedding head, every label of the data was trained on,
            or names cannot be embedded.
    """
    if "label_embeddings" not in checkpoint.tensors:
        raise UserError(
            f"{checkpoint.source}: --unseen needs a model with a label-embedding head; "
            "marey-mini-rgb and models of recipes sevitar_... have one"
        )
    index = options.choose_split(data)
    unseen = unseen_classes(checkpoint, index)
    answers = answer_videos(checkpoint, index, options.pass_options(), tick=tick, resumable=True)
    report = unseen_report(answers, checkpoint, unseen, hubness=options.hubness)
    if leaked := names_seen(index, checkpoint, answers.videos):
        report["seen_in_training"] = leak_of_unseen(answers, checkpoint, leaked, options.hubness)
    return {
        "split": options.split or "".join(index.splits) or None,
        "manifest_hash": index.manifest_hash,
        **report,
    }


def names_seen(index: DatasetIndex, checkpoint: Checkpoint, videos: Sequence[str]) -> list[str]:
    """Return which of some videos a model was trained on."""
    positions = positions_seen(index, checkpoint.tensors)
    names = {index.relative_path(index.samples[position]) for position in positions}
    return [video for video in videos if video in names]


def leak_of_unseen(
    answers: Answers, checkpoint: Checkpoint, leaked: Sequence[str], hubness: bool
) -> dict[str, Any]:
    """Return what the report on unseen classes says of videos that the model was trained on, with
    its numbers on the others."""
    rest = [row for row, video in enumerate(answers.videos) if video not in set(leaked)]
    others = answers.some(rest)
    names = sorted(set(map(str, others.labels)) - set(checkpoint.class_names))
    clean, text = None, "there is no other of an unseen class: this is no measure of the model"
    if names:
        clean = unseen_report(others, checkpoint, names, hubness=hubness)
        text = f"on the {len(rest)} others:\n{clean.pop('summary')['text']}"
    return {
        "num_videos": len(leaked),
        "videos": list(leaked),
        "clean": clean,
        "text": f"LEAKED: {len(leaked)} of these {len(answers.videos)} videos are training videos "
        f"of this model ({', '.join(leaked[:3])}{', ...' if len(leaked) > 3 else ''}); {text}",
    }


def evaluate_by_task(
    checkpoint: Checkpoint, data: str | Path, options: EvaluateOptions
) -> dict[str, Any]:
    """Score a model that takes no clips by the evaluator of its task, on the validation part of
    `data`.

    `--split all` takes every sample where the task holds validation samples out by itself; a
    detection task takes the split of that name. Damaged feature records are left out and named.

    Raises:
        UserError: if the checkpoint does not say how it was trained, or the data has other classes.
    """
    saved = checkpoint.extra.get("config")
    if saved is None:
        raise UserError(
            f"{checkpoint.source}: does not say how it was trained, so it cannot be scored; "
            "evaluate a checkpoint written by 'marey train'"
        )
    config = TrainConfig.from_dict(saved)
    detection = config.data.detection
    if options.split is not None and options.split != "all":
        detection = replace(detection, val_split=options.split)
    config = replace(
        config,
        data=replace(
            config.data,
            path=str(data),
            detection=detection,
            features=replace(config.data.features, on_corrupt="skip"),
            preprocess=config.data.preprocess or checkpoint.preprocess,
            val_fraction=1.0 if options.split == "all" else config.data.val_fraction,
        ),
    )
    task = build_task(config)
    if list(task.class_names) != list(checkpoint.class_names):
        raise UserError(
            f"{data}: has {len(task.class_names)} classes, other than the "
            f"{len(checkpoint.class_names)} of "
            f"{checkpoint.source}; evaluate on data with the same label list"
        )
    device: Literal["cpu", "auto"] = "cpu" if options.device == "cpu" else "auto"
    accelerator = make_accelerator(replace(config, train=replace(config.train, device=device)))
    evaluator = validate.evaluate(
        checkpoint.model.to(accelerator.device),
        task,
        accelerator,
        batch_size=options.batch_size,
        workers=options.workers,
    )
    skipped = list(getattr(task.val_data, "skipped", ()))
    seen = task.seen_in_training(checkpoint.tensors)
    leak = {}
    if seen and task.val_data is not None:
        rest = [position for position in range(len(task.val_data)) if position not in seen]
        clean = None
        if rest:
            others = replace(task, val_data=Some(task.val_data, rest))
            found = validate.evaluate(
                checkpoint.model,
                others,
                accelerator,
                batch_size=options.batch_size,
                workers=options.workers,
            )
            clean = {found.main: found.compute()[found.main], "num_samples": len(rest)}
        leak = {"seen_in_training": leak_of_items(len(seen), len(task.val_data), clean)}
    return {
        **leak,
        "task": checkpoint.task,
        "main": evaluator.main,
        "num_samples": len(task.val_data or ()),
        "unreadable": skipped,
        "num_unreadable": len(skipped),
        **{
            key: value
            for key, value in evaluator.compute().items()
            if not isinstance(value, Tensor)
        },
        "config": config.to_dict(),
    }


class Some:
    """Some items of a data set, asked for as (epoch, i)."""

    def __init__(self, data: Data, positions: Sequence[int]) -> None:
        self.data, self.positions = data, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return self.data[(key[0], self.positions[key[1]])]


def leak_of_items(seen: int, total: int, clean: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the report says of items that a model was trained on.

    Args:
        clean: the main metric on the other items, and their number; None where there are none.
    """
    others = "there are no others: this is no measure of the model"
    if clean is not None:
        (main, value), (_, count) = clean.items()
        others = f"on the {count} others: {main} {value:.3f}"
    text = f"LEAKED: {seen} of these {total} items are training items of this model; {others}"
    return {"num_items": seen, "clean": clean, "text": text}


def checkpoint_of(model: str | Path) -> str | Path:
    """Return what `load_checkpoint` takes: for a run's folder its best checkpoint, else `model`
    itself."""
    return best_of_run(Path(model)) or model
