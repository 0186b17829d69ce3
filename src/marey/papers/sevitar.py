"""`marey reproduce sevitar`: Tables 1 and 2 of Doshi and Yilmaz (SeViTAR).

Mini scale: small models on rendered motion capture and, with `--data`, on a folder of videos split
in train and test (the numbers in `results/` have UT-Interaction there). The transformers share one
frozen ImageNet stem, which stands for the paper's pretrained backbone; I3D trains from scratch on
pixels, having no such start here, and is behind for that reason too. Full scale: the paper's
recipes on the user's data set and its perturbed copy.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions
from marey.evaluation.evaluate import evaluate
from marey.features.cache import cache_key
from marey.files import read_json
from marey.metrics.robustness import absolute_robustness, relative_robustness
from marey.papers.cells import Cell, ReproduceOptions, Row, cells_of, read_tables, rows_of
from marey.papers.sevitar_lines import (
    BATCH_SIZE,
    LINES,
    measure,
    steps_of,
    train_line,
)
from marey.papers.sevitar_mini import open_mini_set, split_index
from marey.recipes import get_recipe
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.training.objective_config import ObjectiveConfig
from marey.video.decode import open_video

PAPER: dict[str, dict[str, float]] = read_tables("sevitar")["paper"]
"""Tables 1 and 2."""
QUOTED = ("SlowFast", "Team Simplexisigil")
"""Lines that are only quoted: nothing is run for them."""
MAIN = ("TimeSformer", "SeViTAR")
"""The paper's main contrast."""


@dataclass(frozen=True, kw_only=True)
class FullRow(Row):
    """A model of Table 1 at full scale."""

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    """In place of the recipe's, where `label_loss` is off."""
    label_loss: bool = False
    """The recipe's objective with its three stages; else the class loss alone."""


FULL_ROWS = rows_of(read_tables("sevitar"), "full", FullRow)

PREPARE_SECONDS = 900.0
"""What rendering, decoding, perturbing and the stem cost once, on one core."""


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without data."""
    if options.scale == "full" and options.data is None:
        raise UserError(
            "--scale full trains on the paper's data sets: give --data DIR with UCF101, HMDB51 or "
            "Kinetics-400, and choose its cells, for example --cells 'UCF-101P*'"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells at a scale; the videos of `--data` get theirs only where it is given."""
    if options.scale == "full":
        return full_cells(options)
    found = table_cells("mocap", options)
    if options.data is not None:
        found += [*table_cells(options.data_name, options), control_cell(options)]
    return [*found, *quoted_cells()]


# ---- Tables 1 and 2, mini -----------------------------------------------------------------------


def table_cells(name: str, options: ReproduceOptions) -> list[Cell]:
    """List every line on one set; the paper's UCF-101P stands beside mocap, its HMDB-51P beside
    videos."""
    paper_set = "UCF-101P" if name == "mocap" else "HMDB-51P"
    found: list[Cell] = []
    for label, line in LINES.items():
        printed = PAPER.get(label, {})
        columns = {"perturbed": paper_set, "perturbed_mini": "UCF-101PMini"}
        if name != "mocap":
            del columns["perturbed_mini"]
        paper = {ours: printed[column] for ours, column in columns.items() if column in printed}
        notes = (f"the paper's is {paper_set}" if paper else "", line.note)
        steps = steps_of(line, name)
        found += cells_of(
            options,
            line,
            functools.partial(run_line, name, label, options),
            name=f"{name}: {label}",
            estimate_seconds=line.seconds * steps / 300,
            paper=paper or None,
            note="; ".join(note for note in notes if note),
            table=f"Tables 1, 2 (mini): {name}",
            settings={"steps": steps, "batch_size": BATCH_SIZE, "set": name},
        )
    if not (options.cache / "features").is_dir():
        first = found[0].estimate_seconds + PREPARE_SECONDS
        found[0] = replace(found[0], estimate_seconds=first)
    return found


def run_line(name: str, label: str, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train one line on the clean training clips and measure it on clean and perturbed test clips,
    in percent."""
    clips = open_mini_set(name, options.cache, options.data)
    line = LINES[label]
    model = train_line(line, clips, seed, run_folder(name, label, seed, options), options)
    kind = ("staged" if line.staged else "joint") if "label" in line.weights else None
    return measure(model, clips, line.model == "i3d") | {"label_training": kind}


def run_folder(name: str, label: str, seed: int, options: ReproduceOptions) -> Path:
    """Return where the run of a cell lies."""
    return options.cache / "runs" / f"sevitar-{name}-{label.replace(' ', '_')}-seed{seed}"


def quoted_cells() -> list[Cell]:
    """List the lines of the paper for which nothing is run here."""
    table, note = "Tables 1, 2: quoted", "quoted from the paper, not run"
    return [
        Cell(f"{name} (quoted)", 0, dict, 0.0, PAPER[name], priority=2, table=table, note=note)
        for name in QUOTED
    ]


def control_cell(options: ReproduceOptions) -> Cell:
    """Return the control: what the size and the length of a video alone tell, without looking at
    it."""
    return Cell(
        f"{options.data_name}: size and length alone",
        0,
        functools.partial(run_control, options),
        20.0,
        None,
        priority=1,
        table=f"Tables 1, 2 (mini): {options.data_name}",
        note="control: width, height and number of frames, nearest training video",
    )


def run_control(options: ReproduceOptions) -> dict[str, Any]:
    """Return the accuracy of the nearest training video by (width, height, frames), each scaled to
    unit deviation."""
    index = split_index(str(options.data))
    rows: dict[str, list[list[float]]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for sample in index.samples:
        if sample.split in rows:
            with open_video(sample.path) as reader:
                rows[sample.split].append([reader.width, reader.height, reader.num_frames])
            labels[sample.split].append(index.label_index(sample))

    train_rows, test_rows = (torch.tensor(rows[split]).float() for split in ("train", "test"))
    scale = train_rows.std(0).clamp_min(1e-6)
    nearest = torch.cdist(test_rows / scale, train_rows / scale).argmin(1)
    is_right = torch.tensor(labels["train"])[nearest] == torch.tensor(labels["test"])
    return {"clean": 100 * float(is_right.double().mean())}


# ---- full scale ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullSet:
    """A data set of Table 1 as the paper trained on it."""

    recipe: str
    dataset: str
    train_videos: int
    split: str = "test"
    """What is evaluated; the test videos of Kinetics have no labels."""


FULL = {
    "UCF-101P": FullSet("sevitar_ucf101", "ucf101", 9_537),
    "HMDB-51P": FullSet("sevitar_hmdb51", "hmdb51", 3_570),
    "Kinetics-400P": FullSet("sevitar_kinetics400", "kinetics400", 80_000, split="val"),
}
FULL_EPOCHS = 15
"""Epochs that train the backbone, of every row; SeViTAR's two later stages come on top of them."""
FULL_CLIPS_PER_SECOND = 150.0
"""Assumed training speed of the full model on one data-centre GPU."""
MINI_PART = 5
"""Table 2's sets are not published with the paper; every fifth perturbed video stands for them."""


def full_cells(options: ReproduceOptions) -> list[Cell]:
    """List Tables 1 and 2 as the paper ran them; every cell trains on `options.data`, so choose one
    data set's cells."""
    found: list[Cell] = []
    for name, full_set in FULL.items():
        for row in FULL_ROWS:
            printed = PAPER[row.name]
            columns = {"perturbed": name, "perturbed_mini": f"{name}Mini"}
            paper = {ours: printed[column] for ours, column in columns.items() if column in printed}
            found += cells_of(
                options,
                row,
                functools.partial(run_full, name, row, options),
                name=f"{name} {row.name}",
                table="Tables 1, 2",
                estimate_seconds=full_set.train_videos * FULL_EPOCHS / FULL_CLIPS_PER_SECOND,
                paper=paper or None,
                settings={"data": options.data_name, **options.changes},
            )
    return found + quoted_cells()


def full_config(
    full_set: FullSet, row: FullRow, options: ReproduceOptions, seed: int
) -> TrainConfig:
    """Return how a row of Table 1 is trained.

    Every row's backbone sees the same number of epochs: `stage_shares` gives SeViTAR's a part of
    the run, so its run is that much longer. `--init` starts the rows whose architecture fits it.
    """
    config = get_recipe(full_set.recipe)
    if not row.label_loss:
        model = replace(config.model, name=row.model, arguments=dict(row.arguments))
        config = replace(config, model=model, objective=ObjectiveConfig())
    config = replace(config, data=replace(config.data, dataset=full_set.dataset))
    if not starts_from(row.model, options.init):
        options = replace(options, init=None)
    config = options.at_full_scale(config, seed)

    shares = config.objective.label.stage_shares
    if row.label_loss and shares is not None:
        run = config.train
        steps = None if run.max_steps is None else round(run.max_steps / shares[0])
        longer = replace(run, epochs=run.epochs / shares[0], max_steps=steps)
        config = replace(config, train=longer)
    return config


def starts_from(model: str, init: str | None) -> bool:
    """Return whether a row may start from `--init`: an I3D from an I3D, a transformer from all
    else."""
    if init is None:
        return False
    path = Path(init) / "config.json"
    found = read_json(path).get("model") if path.is_file() else None
    return (model == "i3d") == (found == "i3d")


def run_full(name: str, row: FullRow, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train a paper recipe, and score it on the clean test videos and on DATA-P, the perturbed
    copy, if it is there."""
    full_set = FULL[name]
    config = full_config(full_set, row, options, seed)
    run_name = f"{full_set.recipe}-{row.name}-seed{seed}"
    if options.changes:  # a run of other settings is another run
        run_name += "-" + cache_key(**options.changes)[:8]
    out = options.cache / "runs" / run_name
    train(config, out, resume=out.exists())

    settings = EvaluateOptions(split=full_set.split, device=options.device)
    report, _ = evaluate(out, str(options.data), replace(settings, dataset=full_set.dataset))
    clean = report["top1"]
    copy = Path(f"{str(options.data).rstrip('/')}-P")
    if not copy.is_dir():
        remedy = "marey corrupt DATA --out DATA-P --corruption random --severity 1,2,3,4,5"
        return {"clean": 100 * clean, "missing": f"{copy.name}: write it with '{remedy}'"}
    report, answers = evaluate(out, str(copy), settings)
    perturbed = report["top1"]
    found = {
        "clean": 100 * clean,
        "perturbed": 100 * perturbed,
        "relative_robustness": 100 * (relative_robustness(clean, perturbed) or 0.0),
        "absolute_robustness": 100 * absolute_robustness(clean, perturbed),
    }
    if answers is not None:
        right = answers.probs.argmax(1) == torch.tensor(answers.labels)
        found["perturbed_mini"] = 100 * float(right[::MINI_PART].double().mean())
    return found
