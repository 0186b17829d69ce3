"""`marey reproduce direcformer`: Tables 1 to 5 and Fig. 1 of Truong et al., CVPR 2022.

Mini scale: `marey.papers.direcformer_poses`, and the main contrast on rendered pixels
(`marey.papers.direcformer_mini`). Full scale: the paper's data sets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions
from marey.evaluation.evaluate import evaluate
from marey.features.cache import cache_key
from marey.files import read_json, write_json
from marey.metrics.comparison import paired_difference, sign_flip_p_value
from marey.models import create_model
from marey.papers.cells import (
    Cell,
    ReproduceOptions,
    Row,
    cells_of,
    read_tables,
    result_path,
    rows_of,
)
from marey.papers.direcformer_mini import (
    MINI_STEPS,
    mini_settings,
    multiply_adds,
    run_mini,
)
from marey.papers.direcformer_poses import pose_settings, run_pose_cell
from marey.papers.figures import draw_cost
from marey.papers.tables import Result
from marey.recipes.direcformer import (
    direcformer_jester,
    direcformer_kinetics400,
    direcformer_something_v2,
)
from marey.training.config import TrainConfig
from marey.training.loop import train

TABLES = read_tables("direcformer")
JESTER = rows_of(TABLES, "jester", Row)
"""Tables 1 and 2."""

MAIN = ("S-S", "C-C +L_ord+L_self")
"""The paper's main contrast: softmax without order, against the whole method."""
POSE_SECONDS = 60.0
"""Expected time of one line at one seed on poses."""
RENDER_SECONDS = 2100.0
"""What rendering the clips and storing their features costs once, on one core."""
FULL_CLIPS_PER_SECOND = 120.0
"""Assumed training speed of the full model on one data-centre GPU (ordered and permuted clip, 224
pixels, bf16)."""


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without data."""
    if options.scale == "full" and options.data is None:
        raise UserError(
            "--scale full trains on the paper's data sets: give --data DIR with Jester, SSv2 or "
            "Kinetics-400, and choose its cells, for example --cells 'Jester*'"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells of the paper's tables at a scale."""
    own = mini_cells(options) if options.scale == "mini" else full_cells(options)
    return [*own, *size_cells(), *quoted_cells()]


# ---- Tables 1 and 2, mini -----------------------------------------------------------------------


def mini_cells(options: ReproduceOptions) -> list[Cell]:
    """List attention kinds x losses on poses, the choice of the settings, and the main contrast on
    pixels.

    All else is equal: S-S too has the order head and the class token as a key over time, which
    TimeSformer has not.
    """
    found: list[Cell] = []
    table, note = "Tables 1, 2 (mini, on poses)", "not in the paper"
    for row in (*JESTER, *rows_of(TABLES, "graded", Row)):
        row = with_chosen(row)
        run = functools.partial(run_pose_cell, row, options)
        settings = {**pose_settings(options), "set": dict(row.set)}
        found += cells_of(
            options, row, run, table=table, settings=settings, estimate_seconds=POSE_SECONDS
        )
    for row in rows_of(TABLES, "tuning", Row):
        run = functools.partial(run_pose_cell, row, options, split="val")
        found += cells_of(
            replace(options, seeds=1),
            row,
            run,
            table="Choice of the guided loss's weight (validation windows)",
            settings={**pose_settings(options), "set": dict(row.set), "split": "val"},
            estimate_seconds=POSE_SECONDS,
            note=note,
        )
    for row in JESTER:
        if row.name in MAIN:
            seconds = MINI_STEPS * (0.27 if "+" in row.name else 0.13) + RENDER_SECONDS
            found += cells_of(
                options,
                row,
                functools.partial(run_mini, row, options),
                name=f"pixels: {row.name}",
                table="Tables 1, 2 (mini, on rendered pixels)",
                settings=mini_settings(),
                estimate_seconds=seconds,
                priority=3,
            )
    return found


def with_chosen(row: Row) -> Row:
    """Return a row with the guided loss's weight that was chosen for its attention over time; what
    the row itself sets wins."""
    kind = row.name[0] + (" graded" if "graded" in row.name else "")
    return replace(row, set={**TABLES["chosen"][kind], **row.set})


def page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Write the paired contrasts of the stored cells to `out`/contrasts.json, and Fig. 1 beside
    them where matplotlib is installed."""
    if find_spec("matplotlib") is not None:
        draw_cost(TABLES["figure1"], out / "figure1.png")
    found = []
    for contrast in TABLES["contrasts"]:
        first, second = (
            values_per_clip(out, name, contrast["measure"]) for name in contrast["lines"]
        )
        if first is None or second is None or first.shape != second.shape:
            continue
        gains = (second - first).mean(0)  # over seeds; clips are the units
        found.append(
            {
                **contrast,
                **paired_difference(first.mean(0), second.mean(0)),
                "p_value": sign_flip_p_value(gains),
                "clips": len(gains),
                "seeds": len(first),
            }
        )
    write_json(out / "contrasts.json", {"contrasts": found})
    return out / "contrasts.json"


def values_per_clip(out: Path, name: str, measure: str) -> Tensor | None:
    """Return a stored measure of every clip, (seeds, clips); None where a line was not run."""
    row = Cell(name, 0, dict, 0.0)
    seeds = []
    for seed in range(100):
        path = result_path(out, replace(row, seed=seed))
        if not path.is_file():
            break
        values = read_json(path)["results"].get(measure)
        if values is None:
            return None
        seeds.append([float(value) for value in values])
    return torch.tensor(seeds) if seeds else None


def quoted_cells() -> list[Cell]:
    """List the rivals of the paper's tables, whose numbers are quoted."""
    note = "quoted from the paper, not trained here"
    return [
        Cell(row.name, 0, dict, 0.0, row.paper, 2, row.table, note)
        for row in rows_of(TABLES, "rivals", Row)
    ]


# ---- Tables 1 to 4, full ------------------------------------------------------------------------


@dataclass(frozen=True)
class FullTable:
    """One table as the paper ran it."""

    title: str
    recipe: Callable[[], TrainConfig]
    key: str
    """Of the rows in direcformer.toml."""
    prefix: str
    """Put before the rows' names."""
    train_videos: int


FULL_TABLES = (
    FullTable("Tables 1, 2", direcformer_jester, "jester", "Jester ", 118_562),
    FullTable("Table 3", direcformer_something_v2, "something_v2", "SSv2 ", 168_913),
    FullTable("Table 4", direcformer_kinetics400, "kinetics", "K400 ", 240_000),
)


def full_cells(options: ReproduceOptions) -> list[Cell]:
    """List Tables 1 to 4; every cell trains on `options.data`, so choose one data set's cells."""
    found: list[Cell] = []
    for table in FULL_TABLES:
        config = table.recipe()
        videos = table.train_videos * (config.train.epochs or 1)
        for row in rows_of(TABLES, table.key, Row):
            if row.paper is not None:
                found += cells_of(
                    options,
                    row,
                    functools.partial(run_full, config, row, options),
                    name=table.prefix + row.name,
                    estimate_seconds=videos / FULL_CLIPS_PER_SECOND,
                    table=table.title,
                    settings={"data": options.data_name, **options.changes},
                )
    return found


def run_full(recipe: TrainConfig, row: Row, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train a full cell on the user's data and evaluate it by one clip x three crops, in
    percent."""
    config = row.configure(recipe)
    config = options.at_full_scale(config, seed)
    name = f"{recipe.recipe}-{row.name.replace(' ', '_')}-seed{seed}"
    if options.changes:  # a run of other settings is another run
        name += "-" + cache_key(**options.changes)[:8]
    out = options.cache / "runs" / name
    train(config, out, resume=out.exists())

    # The test lists of all three data sets come without labels.
    settings = EvaluateOptions(split="val", views=(1, 3), device=options.device)
    report, _ = evaluate(out, str(options.data), settings)
    found = {"top1": 100 * report["top1"], "top5": 100 * report["top5"], "run": out.name}
    order = report.get("order", {}).get("order_accuracy")
    return found if order is None else {**found, "order_acc": 100 * order}


# ---- Table 5 and Fig. 1 -------------------------------------------------------------------------


def size_cells() -> list[Cell]:
    """Parameters and multiply-adds x views at the paper's size (Table 5, Fig. 1)."""
    paper = {"params_million": 121.4, "gmacs_per_view": 196.0, "views": 3.0}
    notes = {"timesformer": "27 classes", "direcformer": "27 classes, 31 orders"}
    table = "Table 5, Fig. 1"
    return [
        Cell(f"size of {name}", 0, functools.partial(count_size, name), 2.0, paper, 1, table, note)
        for name, note in notes.items()
    ]


def count_size(name: str) -> dict[str, Any]:
    """Count parameters and multiply-adds of one view of 8 x 224 x 224 on PyTorch's meta device.

    The paper's count applies the temporal projection as two products; "gmacs_folded" is what ours
    costs in training, where one product does. A dropout above 0 keeps them apart.
    """
    arguments = TABLES["sizes"][name]
    with torch.device("meta"):
        clip = torch.zeros(1, 8, 3, 224, 224)
        model = create_model(name, num_classes=27, **arguments).train()
        unfolded = create_model(name, num_classes=27, dropout=1e-9, **arguments).train()
        macs, folded = multiply_adds(unfolded, clip), multiply_adds(model, clip)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "params_million": parameters / 1e6,
        "gmacs_per_view": macs / 1e9,
        "views": 3.0,
        "parameters": parameters,
        "gmacs_folded": folded / 1e9,
    }
