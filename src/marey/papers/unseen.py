"""`marey reproduce sevitar-unseen`: actions never trained on, over class splits.

SeViTAR's semantic MLP (the paper's middle stage) on features of a network that never saw a class:
the ImageNet network of `marey teach`. Every split leaves classes out of training; what is reported
is the spread over class splits, which is what a new set of names would meet, not over videos. The
control has random vectors for names: it knows which seen class a video is near to, and nothing of
what the unseen names mean.
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError
from marey.evaluation.zero_shot import generalised_area, unseen_accuracies
from marey.files import read_json, write_json
from marey.labels.embed import embed_labels
from marey.metrics.intervals import t_quantile
from marey.papers.cells import Cell, ReproduceOptions, read_tables, result_path
from marey.papers.sevitar_heads import (
    HeadRow,
    Problem,
    Setting,
    apply_heads,
    in_their_span,
    row_vectors,
    train_heads,
)
from marey.papers.sevitar_mini import label_vectors
from marey.papers.sevitar_sets import (
    WORDS,
    HeadSet,
    Split,
    open_head_set,
    recorded_set,
)
from marey.papers.tables import Result
from marey.teaching.folds import folds_of

FOLDS = 5
"""Class splits of one cut of the 15 recordings: three classes are left out of each."""
STEPS = 200
"""Optimiser steps of one split, 32 videos each."""
SETTING = Setting(lr=4e-3, weight_decay=0.01, dropout=0.0)
PROTOTYPE_DRAWS = 20
VECTORS = ("meaning", "words", "random")
"""What names are to the semantic MLP, see `HeadRow.vectors`."""
METRICS = ("zero_shot", "zero_shot_csls", "seen", "unseen", "harmonic_mean", "area", "one_shot")
PLAN: dict[str, Any] = read_tables("sevitar_decided")["unseen"]


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the real videos are not there."""
    if options.scale == "full":
        raise UserError(
            "sevitar-unseen has no full scale: it trains on stored features of renders, and of the "
            "videos in --data; leave --scale out"
        )
    if options.data is not None and not (Path(options.data) / "ut_interaction").is_dir():
        raise UserError(f"{options.data}: expected the folder ut_interaction in it")


def cells(options: ReproduceOptions) -> list[Cell]:
    """List every class split; those of one set and one kind of vectors are one line of the
    table."""
    names = ("mocap", "ut_interaction") if options.data is not None else ("mocap",)
    found = []
    for name, vectors in itertools.product(names, VECTORS):
        for number in range(FOLDS * options.seeds):
            found.append(
                Cell(
                    f"{name}: {vectors}",
                    number,
                    functools.partial(run_split, name, vectors, number, options),
                    3.0,
                    None,
                    priority=1,
                    table=f"Unseen actions: {name}",
                    note="mean and spread over class splits",
                    settings={"steps": STEPS},
                )
            )
    return found


def held_out(fold: int, seed: int, num_classes: int) -> list[int]:
    """Return the classes of one fold: the folds of a seed are disjoint and cover all classes."""
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[fold::FOLDS])


def unseen_of(name: str, number: int, num_classes: int) -> list[int]:
    """Return the classes that a split leaves out: a fold of the recordings, or one pair of the real
    videos' classes, of which there are 15."""
    if name == "mocap":
        return held_out(number % FOLDS, number // FOLDS, num_classes)
    pairs = list(itertools.combinations(range(num_classes), 2))
    return list(pairs[number % len(pairs)])


@dataclass(frozen=True)
class Scored:
    """The test videos of one class split."""

    predicted: Tensor
    """ŝ, (N, E)."""
    labels: Tensor
    """int64, (N,), class numbers of the set."""


def run_split(name: str, vectors: str, number: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train the semantic MLP on the seen classes and score all test videos; numbers in percent.

    Returns:
        "seen", "unseen", "harmonic_mean", "zero_shot" as `evaluation.zero_shot.unseen_accuracies`;
        "zero_shot_csls" with the correction of hubs; "area" as `generalised_area`; "one_shot": the
        nearest of one video per unseen class by z, which sees one video of each unseen action and
        is an upper bound, not a zero-shot method.
    """
    heads = recorded_set(options.cache) if name == "mocap" else real_set(name, options)
    unseen = unseen_of(name, number, len(heads.class_names))
    seen = [label for label in range(len(heads.class_names)) if label not in unseen]
    names = [heads.class_names[label] for label in (*seen, *unseen)]
    places = torch.tensor([names.index(known) for known in heads.class_names])

    row = HeadRow(name=name, kind="semantic", vectors=vectors)  # type: ignore[arg-type]
    meaning = label_vectors(heads.class_names, options.cache)
    words = embed_labels(heads.class_names, WORDS).vectors
    targets = in_their_span(row_vectors(row, meaning, words, number))  # (K, K), in the set's order
    is_seen = torch.isin(heads.labels, torch.tensor(seen))

    predicted, answers, shots = [], [], []
    for split in heads.outer:
        known = split.train[is_seen[split.train]]
        z = heads.z(known)
        problem = Problem(
            z=z[None],
            labels=heads.labels,
            train_rows=[known],
            num_classes=len(names),
            vectors=targets[None],
            settings=[SETTING],
            seeds=[number],
        )
        weights = train_heads(row, problem, STEPS)
        with torch.inference_mode():
            found = apply_heads(weights, z[None], classify=False).label_embedding
        assert found is not None
        predicted.append(found[0, split.test])
        answers.append(heads.labels[split.test])
        shots.append(one_shot_of(z, heads.labels, split, unseen, number))

    scored = Scored(torch.cat(predicted), torch.cat(answers))
    candidates = targets[[*seen, *unseen]]
    labels = places[scored.labels]
    plain = unseen_accuracies(scored.predicted, candidates, labels, len(seen))
    csls = unseen_accuracies(scored.predicted, candidates, labels, len(seen), scored.predicted)
    numbers = {
        **{key: value for key, value in plain.items() if key != "chance"},
        "zero_shot_csls": csls["zero_shot"],
        "area": generalised_area(scored.predicted, candidates, labels, len(seen)),
        "one_shot": statistics.fmean(shots),
    }
    return {key: 100 * (value or 0.0) for key, value in numbers.items()} | {
        "unseen_classes": [heads.class_names[label] for label in unseen]
    }


@functools.lru_cache(maxsize=1)
def real_set(name: str, options: ReproduceOptions) -> HeadSet:
    """Return real videos in two halves of their groups, each tested by a model of the other."""
    heads = open_head_set(name, options.cache, options.data)
    labels = [heads.class_names[label] for label in heads.labels.tolist()]
    halves = folds_of(labels, heads.groups, 2)
    outer = tuple(
        Split((halves != half).nonzero()[:, 0], (halves == half).nonzero()[:, 0]) for half in (0, 1)
    )
    return replace(heads, outer=outer)


def one_shot_of(z: Tensor, labels: Tensor, split: Split, unseen: Sequence[int], seed: int) -> float:
    """Return `one_shot` of the unseen classes of a split."""
    wanted = torch.tensor(list(unseen))
    known = split.train[torch.isin(labels[split.train], wanted)]
    asked = split.test[torch.isin(labels[split.test], wanted)]
    return one_shot(z[known], labels[known], z[asked], labels[asked], seed)


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


# ---- over class splits --------------------------------------------------------------------------


def page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Write means over class splits and the contrast with random vectors, as `<out>.json`; the
    "reading" that is there stays."""
    path = out.with_suffix(".json")
    old = read_json(path) if path.is_file() else {}
    table = read_json(out / "table.json")
    report: dict[str, Any] = {
        "command": table["command"],
        "date": table["date"],
        "reading": old.get("reading", ""),
        "unit": "percent; means over classes",
        "plan": PLAN,
        "sets": {},
    }
    for name in dict.fromkeys(result.name.partition(": ")[0] for result in results):
        lines = {
            result.name.partition(": ")[2]: result
            for result in results
            if result.name.startswith(f"{name}: ") and result.seeds_run
        }
        if not lines:
            continue
        count = 3 if name == "mocap" else 2
        found: dict[str, Any] = {
            "chance_among_unseen_names": round(100 / count, 1),
            "class_splits": {key: len(line.seeds_run) for key, line in lines.items()},
            "vectors": {
                key: {metric: over_splits(line.values[metric]) for metric in METRICS}
                for key, line in lines.items()
            },
            "less_random": {
                key: {
                    metric: over_splits(paired(line, lines["random"], metric))
                    for metric in ("zero_shot", "area", "harmonic_mean")
                }
                for key, line in lines.items()
                if key != "random" and "random" in lines
            },
        }
        found["splits"] = splits_of(out, lines)
        report["sets"][name] = found
    write_json(path, report, indent=1)
    return path


def over_splits(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and half of its 95 % interval, Student's t over class splits."""
    half = 0.0
    if len(values) > 1:
        half = t_quantile(0.975, len(values) - 1) * statistics.stdev(values)
        half /= math.sqrt(len(values))
    return {"mean": round(statistics.fmean(values), 2), "half_width_95": round(half, 2)}


def paired(first: Result, second: Result, metric: str) -> list[float]:
    """Return the differences of two lines on the class splits that both have."""
    pairs = [
        dict(zip(line.seeds_run, line.values[metric], strict=True)) for line in (first, second)
    ]
    return [pairs[0][number] - pairs[1][number] for number in pairs[0] if number in pairs[1]]


def splits_of(out: Path, lines: dict[str, Result]) -> list[dict[str, Any]]:
    """Return the accuracy among unseen names of every class split."""
    found: dict[int, dict[str, Any]] = {}
    for key, line in lines.items():
        for number in line.seeds_run:
            results = read_json(result_path(out, Cell(line.name, number, dict, 0.0)))["results"]
            entry = found.setdefault(number, {"unseen_classes": results["unseen_classes"]})
            entry[key] = round(results["zero_shot"], 2)
    return [found[number] for number in sorted(found)]
