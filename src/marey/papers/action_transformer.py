"""`marey reproduce action_transformer`: Tables 1 to 5 of Girdhar et al., CVPR 2019.

Mini scale: `marey.papers.action_transformer_mini`. Full scale: AVA, I3D trunk, end to end.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from marey.datasets.ava import is_ava
from marey.errors import UserError
from marey.files import weights_digest
from marey.papers.action_transformer_mini import (
    STEPS,
    TRAIN_SCENES,
    Variant,
    bundled_trunk,
    percent,
    run_mini,
)
from marey.papers.cells import Cell, ReproduceOptions, cells_of, read_tables, rows_of
from marey.recipes.action_transformer import action_transformer_ava
from marey.training.config import TrainConfig, override
from marey.training.loop import train

VARIANTS_OF_TABLES = rows_of(read_tables("action_transformer"), "rows", Variant)


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without AVA."""
    if options.scale == "full" and (options.data is None or not is_ava(options.data)):
        raise UserError(
            "--scale full trains on AVA: give --data DIR in AVA's layout (docs/datasets.md)"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells: every line of the tables times the seeds; Table 1's contrast with true boxes
    first."""
    if options.scale == "mini":
        run, changes = run_mini, {}
        trunk = weights_digest(bundled_trunk().state_dict())
        data = options.data or "mocap scenes"
        settings = {"steps": STEPS, "scenes": TRAIN_SCENES, "data": data, "trunk": trunk}
    else:
        run, changes, settings = run_full, {"estimate_seconds": 7 * 86_400.0}, {}
    found: list[Cell] = []
    for variant in VARIANTS_OF_TABLES:
        of_variant = functools.partial(run, variant, options)
        found += cells_of(options, variant, of_variant, settings=settings, **changes)
    return found


def full_config(variant: Variant, options: ReproduceOptions, seed: int) -> TrainConfig:
    """Return the paper's training of one line: 300K steps with true boxes, else 500K; R = 64 unless
    the line says."""
    settings = [f"train.seed={seed}", f"train.device={options.train_device}"]
    if variant.boxes == "truth":
        settings += ["objective.detection.boxes=truth", "train.max_steps=300000"]
    config = override(action_transformer_ava(), settings)

    arguments = {**config.model.arguments, "num_proposals": 64, **variant.model}
    if variant.scratch:
        arguments["frozen_norm"] = False
    return replace(
        config,
        model=replace(config.model, arguments=arguments),
        data=replace(config.data, path=options.data),
        augment=config.augment if variant.augmented else None,
    )


def run_full(variant: Variant, options: ReproduceOptions, seed: int) -> dict[str, Any]:
    """Train one line on AVA as the paper does and return the best validation scores in percent."""
    folder = options.cache / "action_transformer" / f"{variant.name.replace(' ', '-')}-seed{seed}"
    result = train(full_config(variant, options, seed), folder, resume=folder.exists())
    return percent(result.metrics)
