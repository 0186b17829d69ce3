"""What trains the bundled `marey-mini`: rendered motion capture behind a frozen ImageNet stem."""

from __future__ import annotations

from typing import Any

from marey.datasets.mocap_motion import REVERSALS
from marey.layers.efficientnet_lite import IMAGENET_MEAN, IMAGENET_STD
from marey.training.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, RunConfig, TrainConfig
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

MINI_ARGUMENTS: dict[str, Any] = {
    "patch_size": 32, "embed_dim": 128, "depth": 2, "num_heads": 4, "mlp_ratio": 3.0, "time_attention": "cosine",
    "cls_in_time": True, "stem": "efficientnet_lite0", "stem_stage": 6, "freeze_stem_norm": True, "label_hidden": [256],
    "class_hidden": [256], "head_dropout": 0.1, "drop_path": 0.05}
"""The network of `marey-mini`."""


def mini_preprocess() -> Preprocess:
    """Eight frames at 4 frames per second (1.75 s) from the middle of the video, one centre crop of 96 pixels."""
    sampling = ClipSampling(kind="uniform", num_frames=8, stride_frames=1, target_fps=4.0, view_start="offset")
    return Preprocess(sampling=sampling, short_side=96, image_size=96, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def mini_mocap() -> TrainConfig:
    """Train a small directed transformer on clips made by `marey data render mocap --out DIR --clips 10000 --size 112`.

    The bundled weights saw two such renders of 5,000 clips, at seeds 1 and 2, joined (`results/marey_mini.json`).
    EfficientNet-Lite0 up to stage 6 with ImageNet weights is the stem; it is never trained, so its features are stored
    once. Two directed blocks stand on it, with class, order and label-embedding heads;
    the order is learned in the last quarter of the steps, which makes those twice as long.
    No clip is mirrored: left and right differ in the captured motions, and so does what mirroring would call them.
    """
    preprocess = mini_preprocess()
    return TrainConfig(
        recipe="mini_mocap",
        model=ModelConfig(name="sevitar", arguments=MINI_ARGUMENTS),
        data=DataConfig(preprocess=preprocess),
        augment=Augment(preprocess=preprocess, crop="random_resized", area_range=(0.65, 1.0),
                        aspect_range=(0.85, 1.18), flip=0.0, brightness=0.2, contrast=0.2, grey=0.15),
        optim=OptimConfig(name="adamw", lr=1.5e-3, weight_decay=0.05, schedule="onecycle", warmup=0.2, clip_norm=1.0),
        objective=ObjectiveConfig(kind="frozen_stem", label_smoothing=0.05,
                                  weights={"class": 1.0, "label": 0.5, "order": 0.1, "guided": 0.25},
                                  arguments={"inner": "label_embedding", "base": "order", "label_loss": "cosine",
                                             "num_permutations": 1000, "backwards": sorted(REVERSALS.values()),
                                             "variants": 1, "order_from": 0.75}),
        train=RunConfig(epochs=14, batch_size=66, precision="bf16", eval_batch_size=128),
    )
