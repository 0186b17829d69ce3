"""The mini scale of `marey reproduce direcformer` on poses: every line of Tables 1 and 2 with three
seeds.

A small model reads 8 moments of one person (4 a second, 13 parts of the body) of the windows that
`marey data render poses` writes. Every clip is also played backwards as a class of its own, so
that classes come in pairs which only the order of the moments tells apart. Test windows show
recordings, or where an action has one, views and bodies, that training does not. Settings were
chosen on the validation windows, for softmax and cosine attention over time alike (`tuning` in
direcformer.toml).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.datasets.clips import collate_clips
from marey.datasets.open import open_dataset
from marey.datasets.poses import open_keypoints, read_sampling
from marey.errors import UserError
from marey.evaluation.order import measure_order, reliance_numbers
from marey.inference.answers import AnswerOptions, answer_clips
from marey.metrics.accuracy import topk_accuracy
from marey.metrics.order import order_accuracy
from marey.order.correction import permute_frames
from marey.order.path import hamiltonian_path
from marey.papers.cells import ReproduceOptions, Row
from marey.papers.direcformer_mini import BothWays, MiniClips, multiply_adds
from marey.recipes.direcformer import direcformer_poses
from marey.synthetic.motion import reversed_name
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.training.task import Task
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clip_terms import ClipTerms, add_order
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm
from marey.transforms.keypoints import NUM_KEYPOINTS
from marey.transforms.pose_clip import PoseSampling, normalise_pose

MOTIONS = (
    "cartwheel",
    "fall or lie down",
    "flip or roll",
    "get up",
    "jump",
    "kick",
    "punch",
    "push",
    "run",
    "sit",
    "throw or dribble",
    "walk",
)
"""Actions of the mini tables: those whose windows look different backwards."""
T = 8
STEPS = 300
"""Optimiser steps of a cell, 32 clips each."""
MEASURED = 300
"""Clips a cell is measured on: both ways for the class, as recorded x 2 shuffles for the order."""
SHUFFLES = 2


def pose_settings(options: ReproduceOptions) -> dict[str, Any]:
    """Return what the result of a cell depends on, beside its row."""
    return {
        "data": f"poses of {options.data_name}, 12 actions, both ways",
        "steps": STEPS,
        "moments": T,
    }


def run_pose_cell(
    row: Row, options: ReproduceOptions, seed: int, *, split: str = "test"
) -> dict[str, Any]:
    """Train one line and measure it.

    Args:
        split: of the clips that are measured; "val" for `tuning`.

    Returns:
        In percent: "top1" and "top5" of the clips both ways; of clips as recorded "order_acc",
        "up_to_direction", "direction_right", "order_acc_sorted" and the untrained "appearance"
        (shortest path through the keypoints with a coin flip); "top1_shuffled" and
        "top1_corrected" by the model's own path; "order_top1" and "order_loss" of the order head on
        rows of its set. "right" and "order_accs" hold the values of every clip, for paired tests.
    """
    if options.data is None:
        raise UserError(
            "the mini tables train on windows of poses: give --data WINDOWS, made by `marey data "
            "render poses --out WINDOWS`"
        )
    config = pose_config(row, seed)
    clips = pose_clips(Path(options.data))
    out = options.cache / "runs" / f"poses-{row.name.replace(' ', '_')}-seed{seed}"
    shutil.rmtree(out, ignore_errors=True)  # what an interrupted cell left
    train(config, out, task=pose_task(config, clips), quiet=True)
    found = load_checkpoint(out / "last")
    return measure(found.model, clips.split(split), found.tensors.get("permutations"))


def pose_config(row: Row, seed: int) -> TrainConfig:
    """Return the recipe `direcformer_poses` with the attention kinds and losses of a row."""
    config = row.configure(direcformer_poses())
    backwards = tuple(reversed_name(action) for action in MOTIONS)
    order = replace(config.objective.order, backwards=backwards)
    return replace(
        config,
        objective=replace(config.objective, order=order),
        train=replace(config.train, seed=seed, max_steps=STEPS, eval_every=STEPS),
    )


def pose_clips(root: Path) -> MiniClips:
    """Return every second moment of the first person's windows of `MOTIONS`.

    Raises:
        UserError: if the folder holds no windows of them.
    """
    index = open_dataset(root)
    wanted = [sample for sample in index.samples if sample.label in MOTIONS]
    wanted = [sample for sample in wanted if not str(sample.group).startswith("spoiled")]
    if not wanted:
        raise UserError(f"{root}: no window of {', '.join(MOTIONS[:3])}, ...; render poses again")
    step = max(1, read_sampling(root).num_frames // T)
    rows = np.array([sample.row for sample in wanted], np.int64)
    keypoints = open_keypoints(root)[rows][:, ::step, :NUM_KEYPOINTS]
    parts = [
        normalise_pose(part.float()).half() for part in torch.from_numpy(keypoints).split(4096)
    ]
    labels = torch.tensor([MOTIONS.index(str(sample.label)) for sample in wanted])
    return MiniClips(torch.cat(parts), labels, tuple(str(s.split) for s in wanted), MOTIONS)


def pose_task(config: TrainConfig, clips: MiniClips) -> Task:
    """Build the order task on windows of poses, both ways."""
    names = clips.class_names()
    parts = ClipTerms(terms={"class": ClassTerm()})
    add_order(parts, config.objective, names, T)
    objective = ClipsObjective(
        config.objective.weights,
        parts.terms,
        num_classes=len(names),
        permuted_clips=parts.permuted_clips,
    )
    return Task(
        train_data=BothWays(clips.split("train")),
        val_data=None,
        collate=collate_clips,
        class_names=names,
        preprocess=PoseSampling(num_frames=T, fps=4.0),
        objective=objective,
        make_evaluator=lambda: ClipsEvaluator(names, parts.measures),
        tensors=parts.tensors,
        model_arguments={
            "num_frames": T,
            "num_classes": len(names),
            "stem": "pose",
            **parts.model_arguments,
        },
    )


def measure(model: nn.Module, clips: MiniClips, permutations: Tensor | None) -> dict[str, Any]:
    """Return the numbers of `run_pose_cell` on `MEASURED` of the clips, equally spaced.

    Args:
        permutations: (P, T), the set of the order head; None where the model has none.
    """
    chosen = torch.linspace(0, len(clips.labels) - 1, min(MEASURED, len(clips.labels))).long()
    features, labels = clips.features[chosen].float(), clips.labels[chosen]
    model = model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(features)["logits"], model(features.flip(1))["logits"]])
    both = torch.cat([labels, labels + len(clips.actions)])

    items: Sequence[dict[str, Any]] = [{"views": clip[None]} for clip in features]
    given = AnswerOptions(shuffles=SHUFFLES, corrected=True, batch_size=32)
    answers = answer_clips(model, items, given)
    order, by_sorting = measure_order(answers), measure_order(answers, method="sort")
    predicted = {
        "ordered": answers.logits[:, 0].argmax(-1)[:, None].expand(-1, SHUFFLES),
        "shuffled": answers.outputs["shuffled_logits"].argmax(-1),
        "corrected": answers.outputs["corrected_logits"].argmax(-1),
    }
    reliance = reliance_numbers(labels, predicted, seed=0)
    appearance = order["appearance"] or {"order_accuracy": float("nan")}
    return {
        "top1": 100 * topk_accuracy(logits, both, 1),
        "top5": 100 * topk_accuracy(logits, both, 5),
        "order_acc": 100 * order["order_accuracy"],
        "up_to_direction": 100 * order["up_to_direction"],
        "direction_right": 100 * order["direction_right"],
        "order_acc_sorted": 100 * by_sorting["order_accuracy"],
        "appearance": 100 * appearance["order_accuracy"],
        "top1_ordered": 100 * reliance["ordered_accuracy"],
        "top1_shuffled": 100 * reliance["shuffled_accuracy"],
        "top1_corrected": 100 * reliance["corrected_accuracy"],
        **order_head(model, features, permutations),
        "clips": len(labels),
        "macs_million": round(multiply_adds(model, features[:1]) / 1e6, 2),
        "right": "".join(str(int(hit)) for hit in (logits.argmax(1) == both).tolist()),
        "order_accs": order_accs(answers.outputs["order_weights"], answers.outputs["order"]),
    }


def order_head(model: nn.Module, features: Tensor, permutations: Tensor | None) -> dict[str, float]:
    """Return the cross-entropy and the top-1 of the order head, in percent, on clips permuted by
    rows of its own set; nothing without a head. Chance: ln P and 100 / P."""
    if permutations is None:
        return {}
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(permutations), (len(features),), generator=generator)
    with torch.inference_mode():
        outputs = model(permute_frames(features, permutations[index]))
    if "order_logits" not in outputs:
        return {}
    logits = outputs["order_logits"]
    return {
        "order_loss": float(torch.nn.functional.cross_entropy(logits, index)),
        "order_top1": 100 * topk_accuracy(logits, index, 1),
    }


def order_accs(weights: Tensor, order: Tensor) -> list[float]:
    """Return the OrderAcc of every clip, mean over its shuffles, by the paper's path."""
    paths = hamiltonian_path(weights.flatten(0, 1))[0]
    values = order_accuracy(paths, order.flatten(0, 1)).view(order.shape[:2])
    return [round(value, 4) for value in values.mean(1).tolist()]
