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
    LONG_FRAMES,
    STEPS,
    TRAIN_SCENES,
    Variant,
    bundled_trunk,
    run_mini,
)
from marey.papers.cells import Cell, ReproduceOptions
from marey.recipes.action_transformer import action_transformer_ava
from marey.training.config import TrainConfig, override
from marey.training.loop import train

I3D: dict[str, Any] = {"head": "i3d"}
TX: dict[str, Any] = {"head": "tx"}
LOWRES: dict[str, Any] = {"head": "tx", "query": "lowres"}
R300 = {"num_proposals": 300}

VARIANTS_OF_TABLES: tuple[Variant, ...] = (
    Variant(
        name="I3D head",
        table="Tables 1, 2, 3, 5",
        model=I3D,
        paper={"mAP": 21.3, "loc50": 92.9, "loc75": 77.5, "params": 16.2},
    ),
    Variant(
        name="I3D head, GT boxes",
        table="Table 1",
        model=I3D,
        paper={"mAP": 23.4, "params": 16.2},
        boxes="truth",
        priority=0,
    ),
    Variant(
        name="Tx LowRes",
        table="Tables 1, 2",
        model=LOWRES,
        paper={"mAP": 17.8, "loc50": 77.5, "loc75": 43.5, "params": 13.9},
        estimate_seconds=20.0,
    ),
    Variant(
        name="Tx HighRes",
        table="Tables 1, 2, 3",
        model=TX,
        paper={"mAP": 18.9, "loc50": 87.7, "loc75": 63.3, "params": 19.3},
        estimate_seconds=20.0,
    ),
    Variant(
        name="Tx LowRes, GT boxes",
        table="Table 1",
        model=LOWRES,
        paper={"mAP": 28.5, "params": 13.9},
        boxes="truth",
        priority=0,
        estimate_seconds=12.0,
    ),
    Variant(
        name="Tx HighRes, GT boxes",
        table="Table 1",
        model=TX,
        paper={"mAP": 27.6, "params": 19.3},
        boxes="truth",
        priority=0,
        estimate_seconds=12.0,
    ),
    Variant(
        name="I3D head, R=300",
        table="Table 3",
        model=I3D | R300,
        paper={"mAP": 20.5},
        priority=2,
        estimate_seconds=60.0,
    ),
    Variant(
        name="Tx HighRes, R=300",
        table="Tables 3, 4",
        model=TX | R300,
        paper={"mAP": 24.4},
        estimate_seconds=25.0,
    ),
    Variant(
        name="Tx+I3D, R=300",
        table="Tables 3, 4",
        model={"head": "tx+i3d", **R300},
        paper={"mAP": 24.9},
        estimate_seconds=70.0,
    ),
    Variant(
        name="Tx+I3D, R=300, +96f",
        table="Table 4",
        model={"head": "tx+i3d", **R300},
        paper={"mAP": 25.0},
        frames=LONG_FRAMES,
        priority=2,
        estimate_seconds=75.0,
    ),
    Variant(
        name="I3D head, class-specific boxes",
        table="Table 5",
        model=I3D | {"class_specific_boxes": True},
        paper={"mAP": 19.2},
        priority=2,
    ),
    Variant(
        name="I3D head, no augmentation",
        table="Table 5",
        model=I3D,
        paper={"mAP": 16.6},
        augmented=False,
        priority=2,
    ),
    Variant(
        name="I3D head, from scratch",
        table="Table 5",
        model=I3D,
        paper={"mAP": 19.1},
        scratch=True,
        priority=3,
        estimate_seconds=180.0,
    ),
)
"""Every line of Tables 1 to 5 that is the paper's own; mAP and localisation in percent, parameters
in millions."""


def check_data(options: ReproduceOptions) -> None:
    """Raise a `UserError` if the full scale is asked for without AVA."""
    if options.scale == "full" and (options.data is None or not is_ava(options.data)):
        raise UserError(
            "--scale full trains on AVA: give --data DIR in AVA's layout (docs/datasets.md)"
        )


def cells(options: ReproduceOptions) -> list[Cell]:
    """List the cells: every line of the tables times the seeds; Table 1's contrast with true boxes
    first."""
    run = run_mini if options.scale == "mini" else run_full
    settings = {"steps": STEPS, "scenes": TRAIN_SCENES, "data": options.data or "mocap scenes"}
    if options.scale == "mini":
        settings["trunk"] = weights_digest(bundled_trunk().state_dict())
    return [
        Cell(
            variant.name,
            seed,
            functools.partial(run, variant, seed, options),
            variant.estimate_seconds if options.scale == "mini" else 7 * 86_400.0,
            paper=variant.paper,
            priority=variant.priority,
            table=variant.table,
            settings=settings if options.scale == "mini" else {},
            note="end to end, all other lines on a frozen trunk" if variant.scratch else "",
        )
        for variant in VARIANTS_OF_TABLES
        for seed in range(options.seeds)
    ]


def full_config(variant: Variant, seed: int, options: ReproduceOptions) -> TrainConfig:
    """Return the paper's training of one line: 300K steps with true boxes, else 500K; R = 64 unless
    the line says."""
    arguments = {"num_proposals": 64, **variant.model}
    settings = [f"train.seed={seed}", f"train.device={options.train_device}"]
    if variant.boxes == "truth":
        settings += ["objective.detection.boxes=truth", "train.max_steps=300000"]
    config = override(action_transformer_ava(), settings)
    model = replace(
        config.model,
        arguments={
            **config.model.arguments,
            **arguments,
            **({"frozen_norm": False} if variant.scratch else {}),
        },
    )
    return replace(
        config,
        model=model,
        data=replace(config.data, path=options.data),
        augment=config.augment if variant.augmented else None,
    )


def run_full(variant: Variant, seed: int, options: ReproduceOptions) -> dict[str, Any]:
    """Train one line on AVA as the paper does and return the best validation scores in percent."""
    folder = options.cache / "action_transformer" / f"{variant.name.replace(' ', '-')}-seed{seed}"
    result = train(full_config(variant, seed, options), folder, resume=folder.exists())
    found = result.metrics
    return {
        "mAP": 100 * found["map"],
        "loc50": 100 * found["localisation_50"],
        "loc75": 100 * found["localisation_75"],
    }
