"""Actions never trained on, over class splits: part of `marey reproduce sevitar`.

The 15 recordings are cut into five folds of three; every fold is held out once, and each seed cuts
anew. What is reported is the spread over class splits, which is what a new set of names would meet,
not over clips.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.evaluation.zero_shot import unseen_accuracies
from marey.losses.label_embedding import label_embedding_loss
from marey.models.sevitar import perceptron
from marey.papers.cells import Cell, ReproduceOptions
from marey.papers.sevitar_mini import Part, label_vectors, open_mini_set

FOLDS = 5
STEPS = 300
"""Optimiser steps of one fold, 64 clips each."""
PROTOTYPE_DRAWS = 20


def fold_cells(options: ReproduceOptions) -> list[Cell]:
    """One cell per class split, numbered from 0: five folds for each way of cutting the classes.

    All splits are one line of the table, so that its mean and spread are over class splits.
    """
    splits = range(FOLDS * options.seeds)
    return [
        Cell(
            "unseen actions",
            split,
            functools.partial(run_fold, split % FOLDS, split // FOLDS, options),
            5.0,
            None,
            priority=1,
            table="Unseen actions (mocap, 12 seen and 3 unseen classes)",
            note="mean and spread over class splits; chance 33.3 among the three unseen names",
            settings={"steps": STEPS, "folds": FOLDS, "label_loss": "cosine"},
        )
        for split in splits
    ]


def held_out(fold: int, seed: int, num_classes: int) -> list[int]:
    """Return the classes of one fold: the folds of a seed are disjoint and cover all classes."""
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[fold::FOLDS])


def run_fold(fold: int, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train the semantic MLP on the seen classes of a fold and score all test clips; numbers in
    percent.

    This is the paper's middle stage alone: z is frozen. Here z is what the frozen ImageNet stem
    sees: mean, deviation and change over time of its features at every place, which takes seconds
    where a transformer takes minutes.

    Returns:
        "seen", "unseen", "harmonic_mean", "zero_shot" as
        `marey.evaluation.zero_shot.unseen_accuracies`, each also with the correction of hubs
        ("..._csls"), and "one_shot": the nearest of one clip per unseen class by z, which sees one
        clip of each unseen action and is an upper bound, not a zero-shot method.
    """
    clips = open_mini_set("mocap", options.cache)
    unseen = held_out(fold, seed, len(clips.class_names))
    seen = [number for number in range(len(clips.class_names)) if number not in unseen]
    train, held = part_of(clips.train, seen), part_of(clips.train, unseen)
    vectors = label_vectors(clips.class_names, options.cache)
    z = visual_features(train)
    mean, deviation = z.mean(0), z.std(0).clamp_min(1e-3)
    model = train_semantic_mlp((z - mean) / deviation, vectors[train.labels], seed)
    test = (visual_features(clips.test) - mean) / deviation
    predicted = model(test).detach()
    place = {number: position for position, number in enumerate([*seen, *unseen])}
    labels = torch.tensor([place[label] for label in clips.test.labels.tolist()])
    names = vectors[[*seen, *unseen]]
    plain = unseen_accuracies(predicted, names, labels, len(seen))
    csls = unseen_accuracies(predicted, names, labels, len(seen), references=predicted)
    found = {name: value for name, value in plain.items() if name != "chance"}
    found |= {f"{name}_csls": value for name, value in csls.items() if name != "chance"}
    chosen = torch.isin(clips.test.labels, torch.tensor(unseen))
    found["one_shot"] = one_shot(
        (visual_features(held) - mean) / deviation,
        held.labels,
        test[chosen],
        clips.test.labels[chosen],
        seed,
    )
    return {name: 100 * (value or 0.0) for name, value in found.items()} | {
        "unseen_classes": [clips.class_names[number] for number in unseen]
    }


def visual_features(part: Part) -> Tensor:
    """Return mean, deviation and change (second half less first) over time of stem features, (N, 3
    * places * C)."""
    features = part.features.float()
    half = features.shape[1] // 2
    change = features[:, half:].mean(1) - features[:, :half].mean(1)
    return torch.cat(
        [values.flatten(1) for values in (features.mean(1), features.std(1), change)], dim=1
    )


def train_semantic_mlp(features: Tensor, targets: Tensor, seed: int) -> nn.Module:
    """Train SeViTAR's semantic MLP on frozen features, (N, D), against the embeddings of the
    labels, (N, E).

    By the cosine loss: within these few steps the squared distance reaches half the accuracy on
    seen classes.
    """
    torch.manual_seed(seed)
    model = perceptron(features.shape[1], [64], targets.shape[1], dropout=0.2)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=STEPS)
    for _ in range(STEPS):
        places = torch.randint(len(features), (64,))
        optimiser.zero_grad()
        label_embedding_loss(model(features[places]), targets[places], "cosine").backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def part_of(part: Part, classes: Sequence[int]) -> Part:
    """Return the clips of some classes, labels kept."""
    chosen = torch.isin(part.labels, torch.tensor(list(classes)))
    return Part(part.features[chosen], part.pixels[chosen], part.labels[chosen])


def one_shot(
    features: Tensor, labels: Tensor, queries: Tensor, answers: Tensor, seed: int
) -> float:
    """Return the accuracy of the nearest visual prototype by cosine, one clip per class, the mean
    over several draws.

    Args:
        features, labels: (N, D) and (N,), where prototypes are drawn from.
        queries, answers: (M, D) and (M,).
    """
    generator, classes = torch.Generator().manual_seed(seed), labels.unique()
    found = []
    for _ in range(PROTOTYPE_DRAWS):
        places = [
            int(
                (labels == label).nonzero()[:, 0][
                    torch.randint(int((labels == label).sum()), (), generator=generator)
                ]
            )
            for label in classes
        ]
        nearest = (F.normalize(queries, dim=1) @ F.normalize(features[places], dim=1).T).argmax(1)
        found.append(float((classes[nearest] == answers).double().mean()))
    return statistics.fmean(found)
