"""The training of the bundled models of pixels (`marey-mini-rgb`, `marey-mini-order`) and of poses
(`marey-mini`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD
from marey.synthetic.motion import REVERSALS, list_actions
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.data_config import DataConfig, FeatureCacheConfig
from marey.training.objective_config import (
    ClassificationConfig,
    LabelConfig,
    ObjectiveConfig,
    OrderConfig,
)
from marey.transforms.augment import Augment
from marey.transforms.pose_augment import PoseAugment
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

STEM_ARGUMENTS: dict[str, Any] = {
    "patch_size": 24,
    "embed_dim": 128,
    "stem": "conv+efficientnet_lite0",
    "stem_stage": 6,
}
"""The stem of `marey-mini-rgb`: four trained convolutions beside EfficientNet-Lite0 of ImageNet."""

MINI_ARGUMENTS: dict[str, Any] = {
    **STEM_ARGUMENTS,
    "depth": 3,
    "num_heads": 4,
    "mlp_ratio": 3.0,
    "time_attention": "cosine",
    "cls_in_time": True,
    "label_hidden": [256],
    "class_hidden": [256],
    "head_dropout": 0.1,
    "drop_path": 0.05,
}
"""The network of `marey-mini-rgb`."""

SMALL_ARGUMENTS: dict[str, Any] = {
    **STEM_ARGUMENTS,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "freeze_stem_norm": True,
}
"""A small DirecFormer on the frozen stem of `marey-mini-rgb`."""

ONE_CYCLE = OptimConfig(
    name="adamw", lr=1.5e-3, weight_decay=0.05, schedule="onecycle", warmup=0.1, clip_norm=1.0
)
"""How small networks are trained from random weights."""


def mini_preprocess() -> Preprocess:
    """Return 8 frames at 8 a second from the middle of the video, one centre crop of 96 pixels."""
    sampling = ClipSampling(
        kind="uniform", num_frames=8, stride_frames=1, target_fps=8.0, view_start="offset"
    )
    return Preprocess(
        sampling=sampling, short_side=96, image_size=96, mean=LITE0_MEAN, std=LITE0_STD
    )


def mini_augment(preprocess: Preprocess) -> Augment:
    """Return random crops, brightness and contrast, and clips played backwards.

    A clip played backwards gets the label of the reversed action. No clip is mirrored: the labels
    do not tell left from right, but the captured motions do.
    """
    names = list_actions()
    pairs = {names.index(action): names.index(backwards) for action, backwards in REVERSALS.items()}
    return Augment(
        preprocess=preprocess,
        crop="random_resized",
        area_range=(0.55, 1.0),
        aspect_range=(0.8, 1.25),
        flip=0.0,
        reverse=0.5,
        reverse_pairs=pairs | {second: first for first, second in pairs.items()},
        brightness=0.3,
        contrast=0.3,
        grey=0.15,
    )


def mini_order_config() -> OrderConfig:
    """Return how the order is learned from motion capture.

    The reasons are in the docstring of `direcformer.direcformer_mini`.
    """
    return OrderConfig(
        num_permutations=1000,
        rule="farthest",
        mask_diagonal=True,
        backwards=tuple(sorted(REVERSALS.values())),
    )


POSE_ARGUMENTS: dict[str, Any] = {
    "embed_dim": 96,
    "depth": 3,
    "num_heads": 4,
    "mlp_ratio": 2.0,
    "time_attention": "cosine",
    "space_attention": "cosine",
    "cls_in_time": True,
    "label_hidden": [256],
    "class_hidden": [256],
    "head_dropout": 0.1,
    "drop_path": 0.05,
}
"""The network of `marey-mini`: DirecFormer's directed attention over parts of the body and
moments."""


def mini_pose() -> TrainConfig:
    """Train a model such as `marey-mini` on windows of keypoints: about 30 minutes on one core.

    The windows: `marey data render poses --cmu DIR --out DIR --windows 60000`. Class, order and
    meaning of the label are learned together, the order in the last fourth of the steps, where its
    losses did not fall. What the bundled weights were trained with: `docs/poses.md`.
    """
    return TrainConfig(
        recipe="mini_pose",
        model=ModelConfig(name="sevitar", arguments=POSE_ARGUMENTS, start="glorot"),
        data=DataConfig(pose_augment=PoseAugment()),
        optim=OptimConfig(
            name="adamw",
            lr=2e-3,
            weight_decay=0.05,
            schedule="onecycle",
            warmup=0.1,
            clip_norm=1.0,
        ),
        objective=ObjectiveConfig(
            task="poses",
            weights={"class": 1.0, "label": 0.5, "order": 0.1, "guided": 0.25},
            start={"order": 0.75, "guided": 0.75},
            classification=ClassificationConfig(label_smoothing=0.05),
            order=OrderConfig(num_permutations=1000, rule="farthest", mask_diagonal=True),
            label=LabelConfig(loss="cosine"),
        ),
        train=RunConfig(
            epochs=2,
            batch_size=128,
            precision="bf16",
            eval_batch_size=128,
            eval_every=400,
            threads=1,
            unused_parameters=True,
        ),
    )


def arrow_of_time() -> TrainConfig:
    """Train `marey-arrow`, which tells whether a person's moments are played forwards or backwards.

    The windows: `marey data render poses --cmu DIR --out DIR --windows 60000`. No label is read:
    every window is its own example of "forwards", and played backwards of "backwards".
    """
    return TrainConfig(
        recipe="arrow_of_time",
        model=ModelConfig(name="arrow_of_time"),
        data=DataConfig(pose_augment=PoseAugment()),
        optim=replace(ONE_CYCLE, lr=2e-3),
        objective=ObjectiveConfig(task="arrow_of_time"),
        train=RunConfig(
            max_steps=1000,
            batch_size=128,
            eval_batch_size=256,
            eval_every=250,
            select="last",
            calibrate=False,
            threads=1,
        ),
    )


def arrow_tune() -> TrainConfig:
    """Adapt `marey-arrow` to a folder of your own videos, without labels: minutes on one core once
    the people are found.

    `marey train arrow_tune --data VIDEOS --out RUN`, then `marey order VIDEO --direction RUN`. The
    videos must be played forwards. A plain folder will do; class folders and manifests are read as
    for any recipe, without their labels and their split "test". Groups are held out whole.
    """
    base = arrow_of_time()
    return replace(
        base,
        recipe="arrow_tune",
        model=ModelConfig(init_from="marey-arrow"),
        optim=replace(base.optim, lr=7e-4),
        train=replace(base.train, max_steps=250, batch_size=128, eval_every=50),
    )


def mini_stem() -> TrainConfig:
    """Train the convolutions of `marey-mini-rgb` below a plain head (`models/stem_classifier.py`).

    The clips: `marey data render mocap --out DIR --clips 32000 --size 112 --fps 8 --seed 3`.
    """
    preprocess = mini_preprocess()
    return TrainConfig(
        recipe="mini_stem",
        model=ModelConfig(name="stem_classifier", arguments=STEM_ARGUMENTS, imagenet_stem=True),
        data=DataConfig(preprocess=preprocess),
        augment=mini_augment(preprocess),
        optim=replace(ONE_CYCLE, lr=3e-3, warmup=0.2),
        objective=ObjectiveConfig(classification=ClassificationConfig(label_smoothing=0.05)),
        train=RunConfig(
            epochs=6,
            batch_size=128,
            precision="bf16",
            eval_batch_size=64,
            eval_every=400,
            calibrate=False,
        ),
    )


def mini_mocap() -> TrainConfig:
    """Train `marey-mini-rgb` on the clips of `mini_stem`, from the convolutions of that run.

    `--set model.init_from=RUN/best` names the run. Class, order and label embedding are trained
    together; the order terms count in the last fifth of the steps, each of which then costs twice
    as much. The image network beside the convolutions keeps its ImageNet weights and is not run: it
    is used by the OOD detector and by fine-tuning.
    """
    preprocess = mini_preprocess()
    return TrainConfig(
        recipe="mini_mocap",
        model=ModelConfig(
            name="sevitar", arguments=MINI_ARGUMENTS, imagenet_stem=True, start="glorot"
        ),
        data=DataConfig(preprocess=preprocess),
        augment=mini_augment(preprocess),
        optim=ONE_CYCLE,
        objective=ObjectiveConfig(
            weights={"class": 1.0, "label": 0.5, "order": 0.1, "guided": 0.25},
            start={"order": 0.8, "guided": 0.8},
            classification=ClassificationConfig(label_smoothing=0.05),
            order=OrderConfig(num_permutations=1000, backwards=tuple(sorted(REVERSALS.values()))),
            label=LabelConfig(loss="cosine"),
        ),
        train=RunConfig(
            epochs=11,
            batch_size=128,
            precision="bf16",
            eval_batch_size=64,
            eval_every=500,
            unused_parameters=True,
        ),
    )


def mini_order() -> TrainConfig:
    """Train `marey-mini-order`, which recovers the order of frames: a small DirecFormer (C-C).

    It trains with all losses on the clips of `mini_stem`, on the frozen convolutions of that run
    (`--set model.init_from=RUN/best`). The order terms are set as in `direcformer_mini`, whose
    docstring gives the reasons. Of the image network beside the convolutions, which a DirecFormer
    does not read, only the first stage is kept.
    """
    preprocess = mini_preprocess()
    return TrainConfig(
        recipe="mini_order",
        model=ModelConfig(
            name="direcformer",
            start="glorot",
            arguments={**SMALL_ARGUMENTS, "stem_stage": 1},
        ),
        data=DataConfig(preprocess=preprocess, feature_cache=FeatureCacheConfig(variants=1)),
        augment=mini_augment(preprocess),
        optim=ONE_CYCLE,
        objective=ObjectiveConfig(
            weights={"class": 1.0, "order": 1.0, "guided": 10.0}, order=mini_order_config()
        ),
        train=RunConfig(
            max_steps=3000,
            batch_size=32,
            precision="bf16",
            eval_batch_size=64,
            eval_every=3000,
            calibrate=False,
        ),
    )
