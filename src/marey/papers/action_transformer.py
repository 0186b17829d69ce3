"""`marey reproduce action_transformer`: Tables 1 to 5 of Girdhar et al., CVPR 2019.

Mini scale: `marey.papers.action_transformer_mini`. Full scale: AVA, I3D trunk with Kinetics
weights, end to end.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marey.checkpoints.load import load_checkpoint
from marey.datasets.ava import is_ava
from marey.errors import UserError
from marey.files import write_bytes
from marey.models.action_transformer import ActionTransformer, count_parameters
from marey.papers.action_transformer_figures import (
    LINE,
    figure_4,
    figure_5,
    figure_6,
    figure_7,
    figures_folder,
    observations,
    relation_scenes,
)
from marey.papers.action_transformer_mini import (
    SCRATCH_STEPS,
    STEPS,
    Variant,
    percent,
    run_mini,
)
from marey.papers.action_transformer_paired import write_contrasts
from marey.papers.action_transformer_scenes import FIRST_STEPS, TEST_SCENES, TRAIN_SCENES
from marey.papers.cells import Cell, ReproduceOptions, Row, cells_of, read_tables, rows_of
from marey.papers.tables import Result
from marey.recipes.action_transformer import TABLE_MODEL, action_transformer_ava
from marey.training.config import TrainConfig, override
from marey.training.distributed import make_accelerator
from marey.training.loop import train
from marey.training.tasks import build_task
from marey.training.validate import evaluate

TABLES = read_tables("action_transformer")
VARIANTS_OF_TABLES = rows_of(TABLES, "rows", Variant)


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without AVA or Kinetics weights."""
    if options.scale != "full":
        return
    if options.data is None or not is_ava(options.data):
        raise UserError(
            "--scale full trains on AVA: give --data DIR in AVA's layout (docs/datasets.md)"
        )
    if options.init is None:
        raise UserError(
            "--scale full starts all lines but one from an I3D trained on Kinetics: run marey "
            "convert rgb_imagenet.pt --from i3d --out i3d, then add --init i3d"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells: every line of the tables times the seeds; Table 1's contrast with true boxes
    first."""
    found: list[Cell] = []
    for variant in VARIANTS_OF_TABLES:
        if options.scale == "full":
            if variant.full:
                of_variant = functools.partial(run_full, variant, options)
                week, changes = 7 * 86_400.0, options.changes
                found += cells_of(
                    options, variant, of_variant, estimate_seconds=week, settings=changes
                )
            continue
        settings = {
            "steps": SCRATCH_STEPS if variant.scratch else STEPS,
            "first_run_steps": FIRST_STEPS,
            "scenes": [TRAIN_SCENES, TEST_SCENES],
            "data": options.data or "mocap scenes",
            "model": {**TABLE_MODEL, **variant.model, **variant.mini},
        }
        of_variant = functools.partial(run_mini, variant, options)
        found += cells_of(options, variant, of_variant, settings=settings)
    return found + figure_cells(options)


def figure_cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells of Figs. 4 to 7, and at mini scale of what Fig. 4 is said to show."""
    shown = [
        (Row(name="Fig. 4", table="Fig. 4", priority=4), figure_4),
        (Row(name="Fig. 5", table="Fig. 5", priority=4), figure_5),
        (Row(name="Fig. 6", table="Fig. 6", priority=4), figure_6),
        (Row(name="Fig. 7", table="Fig. 7", priority=4), figure_7),
    ]
    if options.scale != "full":
        row = Row(name="Attention and keys", table="Observations on Fig. 4", priority=4)
        shown.append((row, observations))
        row = Row(name="Scenes of relations", table="Context (not in the paper)", priority=4)
        shown.append((row, relation_scenes))
    once = replace(options, seeds=1)
    settings = {"model": LINE if options.scale == "full" else "marey-mini-detect"}
    found: list[Cell] = []
    for row, draw in shown:
        found += cells_of(once, row, functools.partial(draw, options), settings=settings)
    return found


def page(out: Path, results: Sequence[Result], options: ReproduceOptions) -> Path:
    """Write the paired tests of the planned contrasts and the figures beside the tables."""
    for picture in sorted(figures_folder(options.cache).glob("*.png")):
        write_bytes(out / picture.name, picture.read_bytes())
    seeds = {result.name: result.seeds_run for result in results}
    return write_contrasts(out, options.cache, TABLES["contrasts"], seeds)


# ---- full scale -------------------------------------------------------------------------------


def full_config(variant: Variant, options: ReproduceOptions, seed: int) -> TrainConfig:
    """Return the paper's training of one line: from Kinetics weights, 300K steps with true boxes,
    else 500K; R = 64 unless the line says."""
    config = action_transformer_ava()
    if variant.boxes == "truth":
        settings = ["objective.detection.boxes=truth", "train.max_steps=300000"]
        config = override(config, settings)

    arguments = {**config.model.arguments, "num_proposals": 64, **variant.model}
    if variant.scratch:
        arguments["frozen_norm"] = False
    config = replace(
        config,
        model=replace(config.model, arguments=arguments),
        augment=config.augment if variant.augmented else None,
    )
    config = options.at_full_scale(config, seed)
    if variant.scratch:
        config = replace(config, model=replace(config.model, init_from=None))
    return config


def run_full(variant: Variant, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train one line on AVA as the paper does and return its validation scores in percent.

    A line with more frames tests the model of the line it names, trained now if need be.
    """
    name = variant.long or variant.name
    folder = options.cache / "action_transformer" / f"{name.replace(' ', '-')}-seed{seed}"
    config = full_config(variant, options, seed)
    result = train(config, folder, resume=folder.exists())
    model: Any = load_checkpoint(folder / "best").model
    metrics = result.metrics
    if variant.long:
        metrics = evaluate_long(model, config)
    return {**percent(metrics), "params": round(count_parameters(model)["total"], 3)}


def evaluate_long(model: ActionTransformer, config: TrainConfig) -> dict[str, Any]:
    """Score a trained model on validation clips of half as many frames again (96 for 64)."""
    preprocess = config.data.preprocess
    assert preprocess is not None
    sampling = replace(preprocess.sampling, num_frames=preprocess.sampling.num_frames * 3 // 2)
    longer = replace(preprocess, sampling=sampling)
    config = replace(config, data=replace(config.data, preprocess=longer), augment=None)
    accelerator = make_accelerator(config)
    batch_size = config.train.eval_batch_size or max(
        1, config.train.batch_size // config.train.accumulate
    )
    evaluator = evaluate(
        model.to(accelerator.device),
        build_task(config),
        accelerator,
        batch_size=batch_size,
        workers=config.train.workers,
    )
    return evaluator.compute()
