"""Actions never trained on, over class splits: part of `marey reproduce sevitar`.

The 15 recordings are cut into five folds of three; every fold is held out once, and each seed cuts anew. What is
reported is the spread over class splits, which is what a new set of names would meet, not over clips.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.papers.run import Cell, ReproduceOptions, Row
from marey.papers.sevitar_mini import Part, open_mini_set

FOLDS = 5
STEPS = 300
"""Optimiser steps of one fold, 64 clips each."""
PROTOTYPE_DRAWS = 20
T_QUANTILES = {4: 2.776, 9: 2.262, 14: 2.145}
"""97.5% quantile of Student's t by degrees of freedom."""


def fold_cells(options: ReproduceOptions) -> list[Cell]:
    """One cell per fold; its seed also chooses how classes are cut into folds."""
    note = "mean over 3 unseen classes; chance 33.3 among unseen names"
    return [Cell(f"unseen fold {fold + 1}", seed, functools.partial(run_fold, fold, seed, options), 5.0, None,
                 priority=1, table="Unseen actions (mocap, 12 seen and 3 unseen classes)", note=note,
                 settings={"steps": STEPS, "folds": FOLDS, "label_loss": "cosine"})
            for fold in range(FOLDS) for seed in range(options.seeds)]


def held_out(fold: int, seed: int, num_classes: int) -> list[int]:
    """Return the classes of one fold: the folds of a seed are disjoint and cover all classes."""
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[fold::FOLDS])


def run_fold(fold: int, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train the semantic MLP on the seen classes of a fold and score all test clips; numbers in percent.

    This is the paper's middle stage alone: z is frozen. Here z is what the frozen ImageNet stem sees: mean, deviation
    and change over time of its features at every place, which takes seconds where a transformer takes minutes.

    Returns:
        "seen", "unseen", "harmonic_mean", "zero_shot" as `marey.evaluation.zero_shot.unseen_accuracies`, each also
        with the correction of hubs ("..._csls"), and "one_shot": the nearest of one clip per unseen class by z, which
        is given a look at each unseen action and is an upper bound, not a zero-shot method.
    """
    from marey.evaluation.zero_shot import unseen_accuracies
    from marey.papers.sevitar import label_vectors

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
    found["one_shot"] = one_shot((visual_features(held) - mean) / deviation, held.labels, test[chosen],
                                 clips.test.labels[chosen], seed)
    return {name: 100 * (value or 0.0) for name, value in found.items()} | {
        "unseen_classes": [clips.class_names[number] for number in unseen]}


def visual_features(part: Part) -> Tensor:
    """Return mean, deviation and change (second half less first) over time of stem features, (N, 3 * places * C)."""
    features = part.features.float()
    half = features.shape[1] // 2
    change = features[:, half:].mean(1) - features[:, :half].mean(1)
    return torch.cat([values.flatten(1) for values in (features.mean(1), features.std(1), change)], dim=1)


def train_semantic_mlp(features: Tensor, targets: Tensor, seed: int) -> nn.Module:
    """Train SeViTAR's semantic MLP on frozen features, (N, D), against the embeddings of the labels, (N, E).

    By the cosine loss: within these few steps the squared distance reaches half the accuracy on seen classes.
    """
    from marey.losses.label_embedding import label_embedding_loss
    from marey.models.sevitar import perceptron

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


def one_shot(features: Tensor, labels: Tensor, queries: Tensor, answers: Tensor, seed: int) -> float:
    """Return the accuracy of the nearest visual prototype by cosine, one clip per class, the mean over several draws.

    Args:
        features, labels: (N, D) and (N,), where prototypes are drawn from.
        queries, answers: (M, D) and (M,).
    """
    generator, classes = torch.Generator().manual_seed(seed), labels.unique()
    found = []
    for _ in range(PROTOTYPE_DRAWS):
        places = [int((labels == label).nonzero()[:, 0][torch.randint(int((labels == label).sum()), (),
                                                                       generator=generator)]) for label in classes]
        nearest = (F.normalize(queries, dim=1) @ F.normalize(features[places], dim=1).T).argmax(1)
        found.append(float((classes[nearest] == answers).double().mean()))
    return statistics.fmean(found)


def over_splits(rows: Sequence[Row], metric: str) -> tuple[float, float, int] | None:
    """Return mean and half-width of the 95% interval of a metric over all class splits run, and their number.

    Student's t over folds x seeds. Folds of one seed share no unseen class; those of two seeds may.
    """
    values = [value for row in rows if row.name.startswith("unseen fold") for value in row.values.get(metric, [])]
    if len(values) < 2:
        return None
    t = next((T_QUANTILES[n] for n in sorted(T_QUANTILES, reverse=True) if n <= len(values) - 1), 12.7)
    return statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(len(values)), len(values)


def read_folds(rows: Sequence[Row]) -> str:
    """Say what names alone reach, against chance and against one look."""
    found = {metric: over_splits(rows, metric) for metric in
             ("zero_shot", "zero_shot_csls", "one_shot", "seen", "unseen", "harmonic_mean")}
    first = found["zero_shot"]
    if first is None:
        return "Unseen actions have not been run."
    mean, half, splits = first
    texts = {metric: "–" if value is None else f"{value[0]:.1f} ± {value[1]:.1f}" for metric, value in found.items()}
    verdict = "above chance" if mean - half > 100 / 3 else "not told apart from chance"
    return (f"Unseen actions, 95% interval over {splits} class splits: {texts['zero_shot']} among three unseen names "
            f"(chance 33.3: {verdict}), {texts['zero_shot_csls']} with the correction of hubs; one look at each "
            f"(nearest visual prototype, a 1-shot upper bound) {texts['one_shot']}. Among all 15 names: seen "
            f"{texts['seen']}, unseen {texts['unseen']}, harmonic mean {texts['harmonic_mean']}.")
