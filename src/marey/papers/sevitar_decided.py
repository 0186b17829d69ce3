"""`marey reproduce sevitar-decided`: does SeViTAR's semantic head help?

Heads alone, on the stored features of one frozen backbone a data set: a linear layer, an MLP of
SeViTAR's size, the same network without the label loss, and SeViTAR's head with meaning, random and
permuted vectors, joint and staged. The rows, the contrasts and the rule are in
`sevitar_decided.toml`; the verdicts are written beside the tables, as `<out>.json`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError
from marey.files import finite, read_json, write_json
from marey.labels.embed import embed_labels
from marey.metrics.equivalence import (
    CrossedDifference,
    crossed_difference,
    margin_from_power,
    verdict,
)
from marey.metrics.intervals import proportion_interval
from marey.papers.cells import (
    Cell,
    ReproduceOptions,
    cells_of,
    read_tables,
    result_path,
    rows_of,
)
from marey.papers.figures import describe_embedding, draw_embeddings
from marey.papers.sevitar_heads import (
    BATCH_SIZE,
    HIDDEN,
    SETTINGS,
    HeadOutputs,
    HeadRow,
    Problem,
    Setting,
    apply_heads,
    in_their_span,
    parameters_of,
    row_vectors,
    train_heads,
)
from marey.papers.sevitar_mini import label_vectors
from marey.papers.sevitar_sets import (
    SET_NAMES,
    WORDS,
    HeadSet,
    Split,
    convolution_means,
    open_head_set,
)
from marey.papers.tables import Result

TABLES = read_tables("sevitar_decided")
ROWS = {row.name: row for row in rows_of(TABLES, "rows", HeadRow)}
PLAN: dict[str, Any] = TABLES["plan"]
FIGURE_CLIPS = 400
"""Test clips that are drawn in Fig. 1."""
STEPS = {"mocap": 200, "ut_interaction": 250, "surv_fight": 100}
"""Steps of 32 videos."""


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the real videos are not there."""
    if options.scale == "full":
        raise UserError(
            "sevitar-decided has no full scale: it compares heads on stored features of renders, "
            "and of the videos in --data; leave --scale out"
        )
    for name in set_names(options)[1:]:
        if not (Path(str(options.data)) / name).is_dir():
            raise UserError(f"{options.data}: expected the folder {name} in it")


def set_names(options: ReproduceOptions) -> tuple[str, ...]:
    """Return the data sets of a run: mocap, and the real ones where `--data` names their folder."""
    return SET_NAMES if options.data is not None else SET_NAMES[:1]


def cells(options: ReproduceOptions) -> list[Cell]:
    """List every head on every set."""
    found: list[Cell] = []
    for name in set_names(options):
        for row in ROWS.values():
            found += cells_of(
                options,
                row,
                functools.partial(run_head, name, row, options),
                name=f"{name}: {row.name}",
                table=name,
                estimate_seconds=15.0 * row.times,
                settings={"steps": STEPS[name] * row.times, "batch_size": BATCH_SIZE},
            )
    return [*found, figure_cell(options)]


# ---- one cell -----------------------------------------------------------------------------------


def run_head(name: str, row: HeadRow, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train a head on every outer fold and score the test videos, in percent.

    Returns:
        "top1"; "confusable", the same on classes that look alike; "train_top1" and "train_loss",
        which say whether the heads converged; the settings of each block of folds; "right", a 0 or
        1 for every test video in the order of the data.
    """
    return run_seeds(name, row.name, options.cache, options.data, options.seeds)[seed]


@functools.lru_cache(maxsize=len(SET_NAMES) * len(ROWS))
def run_seeds(
    name: str, row_name: str, cache: Path, data: str | None, seeds: int
) -> list[dict[str, Any]]:
    """Return what `run_head` returns of every seed: all folds of all seeds train together."""
    heads, row = open_head_set(name, cache, data), ROWS[row_name]
    chosen = tuned_settings(heads, row, cache)
    folds = [
        Fold(split, chosen[block], seed, number)
        for seed in range(seeds)
        for number, (split, block) in enumerate(zip(heads.outer, heads.block_of, strict=True))
    ]
    outputs, fitted = train_folds(heads, row, folds, cache, STEPS[name])
    answers = logits_of(outputs).argmax(2)  # (F, M)

    tested = torch.cat([split.test for split in heads.outer]).sort().values
    alike = heads.confusable()[tested]
    found = []
    for seed in range(seeds):
        answered = torch.full((len(heads.labels),), -1)
        mine = [number for number, fold in enumerate(folds) if fold.seed == seed]
        for number in mine:
            rows = folds[number].split.test
            answered[rows] = answers[number, rows]
        right = (answered == heads.labels)[tested]
        result: dict[str, Any] = {"top1": 100 * float(right.double().mean())}
        if bool(alike.any()):
            result["confusable"] = 100 * float(right[alike].double().mean())
        for key in ("train_top1", "train_loss"):
            result[key] = sum(fitted[number][key] for number in mine) / len(mine)
        D, (K, E) = heads.z(heads.outer[0].train).shape[1], vectors_of(heads, row, cache, 0).shape
        result["parameters"] = float(parameters_of(row.kind, D, K, E))
        result["chosen"] = [setting._asdict() for setting in chosen]
        result["right"] = "".join("01"[value] for value in right.tolist())
        found.append(result)
    return found


class Fold(NamedTuple):
    """One model: what it sees, how it is trained."""

    split: Split
    setting: Setting
    seed: int
    number: int
    """Of the fold: another start and another order of the videos for each, the same for every
    row."""


def train_folds(
    heads: HeadSet, row: HeadRow, folds: Sequence[Fold], cache: Path, steps: int
) -> tuple[HeadOutputs, list[dict[str, float]]]:
    """Train one model a fold, all at once.

    Returns:
        what every model makes of all videos, and its accuracy (percent) and cross-entropy on its
        own training videos.
    """
    z = torch.stack([heads.z(fold.split.train) for fold in folds])
    problem = Problem(
        z=z,
        labels=heads.labels,
        train_rows=[fold.split.train for fold in folds],
        num_classes=len(heads.class_names),
        vectors=torch.stack([vectors_of(heads, row, cache, fold.seed) for fold in folds]),
        settings=[fold.setting for fold in folds],
        seeds=[1000 * fold.seed + 10 * fold.number for fold in folds],
    )
    weights = train_heads(row, problem, steps)
    with torch.inference_mode():
        outputs = apply_heads(weights, z)
    fitted = []
    for fold, scores in zip(folds, logits_of(outputs), strict=True):
        known, labels = scores[fold.split.train], heads.labels[fold.split.train]
        right = (known.argmax(1) == labels).double().mean()
        loss = F.cross_entropy(known, labels)
        fitted.append({"train_top1": 100 * float(right), "train_loss": float(loss)})
    return outputs, fitted


def logits_of(outputs: HeadOutputs) -> Tensor:
    """Return the logits, (F, M, K), of heads that classify."""
    assert outputs.logits is not None
    return outputs.logits


def vectors_of(heads: HeadSet, row: HeadRow, cache: Path, seed: int) -> Tensor:
    """Return the label vectors of a row, (K, K), see `in_their_span`."""
    meaning = label_vectors(heads.class_names, cache)
    words = embed_labels(heads.class_names, WORDS).vectors if row.vectors == "words" else meaning
    return in_their_span(row_vectors(row, meaning, words, seed))


def tuned_settings(heads: HeadSet, row: HeadRow, cache: Path) -> list[Setting]:
    """Return the setting of each block of outer folds, chosen once on videos that it does not test.

    By accuracy, then by cross-entropy, of the inner folds' held-out videos.
    """
    path = cache / "tuned" / f"{heads.name}-{row.name}.json".replace(" ", "_")
    if path.is_file():
        return [Setting(**setting) for setting in json.loads(path.read_text(encoding="utf-8"))]
    folds = [
        Fold(split, setting, 0, number)
        for splits in heads.inner
        for setting in SETTINGS
        for number, split in enumerate(splits)
    ]
    outputs, _ = train_folds(heads, row, folds, cache, STEPS[heads.name])
    scores: list[tuple[float, float]] = []
    for fold, answers in zip(folds, logits_of(outputs), strict=True):
        asked, labels = answers[fold.split.test], heads.labels[fold.split.test]
        right = float((asked.argmax(1) == labels).double().mean())
        scores.append((right, -float(F.cross_entropy(asked, labels))))

    found, start = [], 0
    for splits in heads.inner:
        count = len(splits)
        means = []
        for number in range(len(SETTINGS)):
            part = scores[start + number * count : start + (number + 1) * count]
            means.append(tuple(sum(values) / count for values in zip(*part, strict=True)))
        found.append(SETTINGS[max(range(len(SETTINGS)), key=means.__getitem__)])
        start += count * len(SETTINGS)
    write_json(path, [setting._asdict() for setting in found])
    return found


# ---- Fig. 1 -------------------------------------------------------------------------------------


def figure_cell(options: ReproduceOptions) -> Cell:
    """Return the cell that draws Fig. 1 from the test clips of mocap."""
    return Cell(
        "Fig. 1",
        0,
        functools.partial(run_figure, options),
        60.0,
        None,
        priority=4,
        table="Fig. 1",
        note="trained convolutions, z, [s, z] of the test clips: silhouette and leave-one-out 5-NN",
    )


def run_figure(options: ReproduceOptions) -> dict[str, Any]:
    """Draw three panels into `<cache>/fig1.png`; returns silhouette and k-NN accuracy of each.

    The paper sets I3D beside its transformer. Here the trained convolutions below the transformer
    of `marey-mini-rgb` stand in I3D's place; ŝ is that of the staged head, seed 0.
    """
    heads = open_head_set("mocap", options.cache, options.data)
    row, (split,) = ROWS["staged [s, z], meaning"], heads.outer
    (setting,) = tuned_settings(heads, row, options.cache)
    folds = [Fold(split, setting, 0, 0)]
    answers, _ = train_folds(heads, row, folds, options.cache, STEPS["mocap"])
    assert answers.label_embedding is not None
    z, embedding = heads.z(split.train), answers.label_embedding[0]

    shown = split.test[:FIGURE_CLIPS]
    panels = {
        "convolutions": convolution_means(options.cache)[shown],
        "z": z[shown],
        "[ŝ, z]": torch.cat((embedding, z), dim=1)[shown],
    }
    labels = heads.labels[shown]
    draw_embeddings(panels, labels, heads.class_names, options.cache / "fig1.png")
    found: dict[str, Any] = {"clips": f"{len(shown)}"}
    for name, features in zip(("convolutions", "z", "sz"), panels.values(), strict=True):
        numbers = describe_embedding(features, labels)
        found |= {f"{name}_{key}": value for key, value in numbers.items()}
    return found


# ---- verdicts -----------------------------------------------------------------------------------


def page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Write the verdicts beside the tables, as `<out>.json`; the "reading" that is there stays."""
    path = out.with_suffix(".json")
    old = read_json(path) if path.is_file() else {}
    table = read_json(out / "table.json")
    report: dict[str, Any] = {
        "command": table["command"],
        "date": table["date"],
        "reading": old.get("reading", ""),
        "plan": PLAN | {"hidden": HIDDEN, "steps": STEPS, "settings_tried": SETTINGS},
        "sets": {},
    }
    drawn = [result for result in results if result.table == "Fig. 1" and result.seeds_run]
    if drawn:
        report["fig1"] = {key: round(values[0], 4) for key, values in drawn[0].values.items()}
    for name in SET_NAMES:
        rows = [result for result in results if result.table == name and result.seeds_run]
        if rows:
            data = open_head_set(name, options.cache, data_of(table["command"]))
            report["sets"][name] = set_report(out, name, rows, data)
    write_json(path, finite(report), indent=1)
    return path


def data_of(command: str) -> str | None:
    """Return what `--data` names in a command."""
    words = command.split()
    return words[words.index("--data") + 1] if "--data" in words else None


def set_report(out: Path, name: str, rows: Sequence[Result], heads: HeadSet) -> dict[str, Any]:
    """Return accuracies with intervals and the contrasts of one set."""
    tested = torch.cat([split.test for split in heads.outer]).sort().values
    groups = [heads.groups[row] for row in tested.tolist()]
    alike = heads.confusable()[tested]
    right = {
        result.name.partition(": ")[2]: answers_of(out, result.name, result.seeds_run)
        for result in rows
    }
    margin = margin_from_power(len(tested), PLAN["discordant"])
    contrasts = []
    for contrast in TABLES["contrasts"]:
        second, first = contrast["pair"]
        if not {first, second} <= set(right):
            continue
        seeds = min(len(right[first]), len(right[second]))
        if seeds < 2:
            continue  # one seed does not tell how seeds differ
        gains = right[second][:seeds] - right[first][:seeds]
        level = PLAN["primary_level"] if contrast.get("primary") else 0.95
        found = crossed_difference(gains, groups)
        entry = {
            "contrast": contrast["name"],
            "of": f"{second} - {first}",
            "primary": bool(contrast.get("primary")),
            **described(found, level),
            "margin": round(100 * margin, 2),
            "verdict": verdict(found, margin, level=level),
            "discordant": round(100 * float((gains != 0).double().mean()), 2),
        }
        if bool(alike.any()):
            members = [group for group, keep in zip(groups, alike.tolist(), strict=True) if keep]
            part = crossed_difference(gains[:, alike], members)
            entry["among_confusable_classes"] = described(part, 0.95)
        contrasts.append(entry)
    return {
        **heads.about,
        "test_videos": len(tested),
        "groups": len(set(groups)),
        "confusable_videos": int(alike.sum()),
        "heads": {
            head: {
                "top1": round(100 * float(values.mean()), 2),
                "over_seeds": over_seeds(values),
                "interval": [
                    round(100 * end, 2) for end in proportion_interval(values.mean(0), groups)
                ],
                **{
                    key: round(result.mean(key) or 0.0, 3)
                    for key in ("confusable", "train_top1", "train_loss", "parameters")
                    if key in result.values
                },
            }
            for (head, values), result in zip(right.items(), rows, strict=True)
        },
        "contrasts": contrasts,
    }


def over_seeds(right: Tensor) -> float | None:
    """Return the standard deviation of accuracy over seeds in points; None for one seed."""
    return round(100 * float(right.mean(1).std()), 2) if len(right) > 1 else None


def described(found: CrossedDifference, level: float) -> dict[str, Any]:
    """Return a difference in points as JSON types."""
    return {
        "difference": round(100 * found.mean, 2),
        "interval": [round(100 * end, 2) for end in found.interval(level)],
        "level": round(level, 4),
        "interval_90": [round(100 * end, 2) for end in found.interval(0.90)],
        "seeds": found.num_seeds,
    }


def answers_of(out: Path, name: str, seeds: Sequence[int]) -> Tensor:
    """Return which test videos the cells of one row answer rightly, float64 (S, N)."""
    rows = []
    for seed in seeds:
        stored = read_json(result_path(out, Cell(name, seed, dict, 0.0)))
        rows.append([float(value) for value in stored["results"]["right"]])
    return torch.tensor(rows, dtype=torch.double)
