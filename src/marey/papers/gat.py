"""`marey reproduce gat`: Tables 1 and 2 and Figs. 1, 3 to 8 of Sahu et al., beside the paper's
numbers.

Mini scale trains on `marey data render youtube8m-mini`: TFRecords in the YouTube-8M format whose
labels are planted as short local events among decoys. Numbers there are not the paper's; what can
be compared is which effects hold. Full scale trains the paper's settings on the shards given as
`--data`. The rows are in gat.toml.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marey.errors import UserError
from marey.metrics.youtube8m import METRICS, paired_gap_difference
from marey.papers.cells import Cell, ReproduceOptions, Row, cells_of, read_tables, rows_of
from marey.papers.gat_figures import (
    attention_under_attack,
    class_gains,
    listing,
    profiles,
)
from marey.papers.gat_pictures import write_figures
from marey.papers.gat_study import PGD_STEPS, GATRow, Study, measure_under_attack
from marey.papers.stored_models import code_digest, data_digest
from marey.papers.tables import Result
from marey.recipes.gat import PAPER_SHARE, gat_youtube8m, gat_youtube8m_mini
from marey.training.config import TrainConfig, override

TABLES = read_tables("gat")
FULL_SECONDS = 40 * 3600.0
"""Assumed for one training at full scale."""
ATTACKS = {"2": PAPER_SHARE, "14": 0.14}
"""Percent in a metric's name -> share of the frame norm, of Fig. 7."""


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without data."""
    if options.scale == "full" and options.data is None:
        raise UserError(
            "the full scale trains on YouTube-8M; give the folder of its shards as --data, or take "
            "--scale mini, which makes its own"
        )


def recipe_of(scale: str) -> TrainConfig:
    """Return the recipe of a scale."""
    return gat_youtube8m() if scale == "full" else gat_youtube8m_mini()


def rows_at(scale: str, key: str, kind: type[Any] = GATRow) -> tuple[Any, ...]:
    """Return the rows of one table that belong to a scale."""
    return tuple(row for row in rows_of(TABLES, key, kind) if row.scale in ("both", scale))


@dataclass(frozen=True, kw_only=True)
class Contrast(GATRow):
    """Two models whose GAP on the test set is compared."""

    ours: str = ""
    baseline: str = ""


FIGURES = (
    ("profiles", "Figs. 1a, 4", profiles),
    ("attention under attack", "Figs. 1b, 6", attention_under_attack),
    ("classes", "Fig. 8", class_gains),
    ("listing", "Table 2", listing),
)
"""Name of a cell, what it belongs to, and the function that computes it from models of Table 1."""


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells of the paper's tables and figures at a scale."""
    keys = {"table1": "Table 1", "fig3": "Fig. 3", "fig5": "Fig. 5"}
    rows = {key: rows_at(options.scale, key) for key in keys}
    study = Study(
        options=options,
        config=override(recipe_of(options.scale), options.set),
        rows={row.name: row for trained in rows.values() for row in trained},
    )
    depends_on = {
        "code": code_digest(),
        "data": "youtube8m-mini" if options.data is None else data_digest(options.data),
        **options.changes,
    }
    found: list[Cell] = []

    def add(row: Row, run: Callable[[int], dict[str, Any]], **fields: Any) -> None:
        settings = {"row": dict(row.set), "base": row.base, **depends_on}
        found.extend(cells_of(options, row, run, settings=settings, **fields))

    for key, table in keys.items():
        measured = measure if key == "table1" else measure_on_validation
        for row in rows[key]:
            run = functools.partial(measured, study, row.name)
            seconds = FULL_SECONDS if options.scale == "full" else row.seconds
            add(row, run, table=table, estimate_seconds=seconds)
    for row in rows_at(options.scale, "fig7"):
        name, run = f"{row.name}, attacked", functools.partial(measure_robustness, study, row.name)
        add(row, run, name=name, table="Fig. 7", priority=4, estimate_seconds=30.0)
    for name, table, compute in FIGURES:
        row = Row(name=name, table=table, note="from the models of Table 1", priority=5)
        add(row, functools.partial(compute, study), estimate_seconds=10.0)
    for row in rows_at(options.scale, "contrasts", Contrast):
        run = functools.partial(compare, study, row)
        settings = {"seeds": options.seeds, "pair": [row.ours, row.baseline], **depends_on}
        note = f"{row.ours} less {row.baseline}"
        table = "Paired differences of GAP, points"
        found.append(Cell(row.name, 0, run, 15.0, row.paper, 6, table, note, settings))
    return found


def measure(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Measure a model on the test set (Table 1).

    Returns:
        GAP, MAP, PERR and Hit@1 in percent, the standard deviation of GAP over five equal parts of
        the test videos (section 4.2), the GAP of the validation videos, parameters, and eps as a
        share of the norm of a frame where the model is trained adversarially.
    """
    evaluator = study.answers(name, seed, "test")
    scores = evaluator.compute()
    return {
        **{metric: 100 * scores[metric] for metric in METRICS},
        "gap_std_of_5_parts": 100 * evaluator.partitions(5)["gap"]["std"],
        **measure_on_validation(study, name, seed),
        "parameters": sum(p.numel() for p in study.model(name, seed).parameters()),
    }


def measure_on_validation(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Return the GAP of the validation videos in percent (Figs. 3 and 5), and eps as a share of the
    norm of a frame."""
    gap = 100 * study.answers(name, seed, "validate").compute()["gap"]
    return {"val_gap": gap, **eps_in_percent(study, name)}


def eps_in_percent(study: Study, name: str) -> dict[str, float]:
    """Return eps of a model as percent of the mean norm of the validation frames, one feature
    each; {} where nothing is perturbed."""
    objective = study.configure(name).objective
    if not objective.weights.get("adversarial") and not objective.weights.get("attention"):
        return {}
    adversarial = objective.adversarial
    if adversarial.relative:
        return {"eps_percent": 100 * adversarial.eps}
    return {
        f"eps_percent_{feature}": 100 * adversarial.eps / norm
        for feature, norm in study.frame_norms().items()
    }


def measure_robustness(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Measure a model on attacked validation videos (Fig. 7): the paper's single step, several
    steps, and perturbations of another model; how far its maps move under the single step."""
    clean = 100 * study.answers(name, seed, "validate").compute()["gap"]
    found: dict[str, Any] = {"clean": clean}
    for percent, eps in ATTACKS.items():
        single = measure_under_attack(study, name, seed, eps)
        found[f"step_{percent}"] = single["gap"]
        several = measure_under_attack(study, name, seed, eps, steps=PGD_STEPS)
        found[f"pgd_{percent}"] = several["gap"]
        transfer = measure_under_attack(study, name, seed, eps, against="GMSA-CE")
        found[f"transfer_{percent}"] = transfer["gap"]
        if eps == PAPER_SHARE:
            found["map_distance"] = single["map_distance"]
    return found


def compare(study: Study, contrast: Contrast) -> dict[str, float]:
    """Return the paired difference of GAP over all seeds in points, its 95 % interval and its
    p-value."""
    pair = [
        [study.answers(name, seed, "test") for seed in range(study.options.seeds)]
        for name in (contrast.ours, contrast.baseline)
    ]
    found = paired_gap_difference(pair[0], pair[1], repeats=500)
    points = {key: 100 * found[key] for key in ("difference", "low", "high")}
    return {**points, "p_value": found["p_value"]}


def page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Draw the figures from the stored cells; returns the page that shows them."""
    return write_figures(out)
