"""Evaluate any checkpoint, or a run, by what it is: classes, order, unseen names, persons, features."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from marey.datasets.open import choose_split
from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions, Predictions, predict_index, report_of

if TYPE_CHECKING:
    from marey.checkpoints.folder import Checkpoint

ADDITIONS: dict[str, str] = {"permutations": "marey.training.terms.order:evaluate_more"}
"""Tensor in a checkpoint that tells of an ability -> function(checkpoint, data, options) -> dict for the report."""

UNSEEN = "marey.evaluation.zero_shot:evaluate_unseen"
"""Function(checkpoint, data, options) -> dict: the whole report of `marey evaluate --unseen`."""



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
    from marey.checkpoints.load import load_checkpoint

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
    index = choose_split(data, dataset=options.dataset, split=options.split, split_by=options.split_by)
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
