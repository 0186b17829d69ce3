"""From the bundled weights to the user's own folder of videos."""

from __future__ import annotations

from dataclasses import replace

from marey.recipes.mini import MINI_ARGUMENTS, mini_preprocess
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.data_config import DataConfig, FeatureCacheConfig
from marey.training.objective_config import ClassificationConfig, ObjectiveConfig
from marey.transforms.augment import Augment


def finetune_folder() -> TrainConfig:
    """Fine-tune `marey-mini-rgb` on a folder of videos, in minutes on a CPU for a few dozen.

    Regularisation for small data sets: the stem is frozen; a linear map of its grid (appearance of
    every patch, and its change) is fitted first, in closed form, with a penalty chosen by
    cross-validation; the transformer and its class head then learn what that map misses, while the
    map is frozen. Trained further it reached 0.38 in place of 0.83, with an earlier
    `marey-mini-rgb` on ut_interaction. Every clip is a window of 1.75 s at one size, twice as
    long as that model's.

    For another network: `--set data.feature_cache=null --set model.name=null --set
    model.arguments={} --set model.init_from=...`.
    """
    preprocess = mini_preprocess()
    preprocess = replace(preprocess, sampling=replace(preprocess.sampling, target_fps=4.0))
    return TrainConfig(
        recipe="finetune_folder",
        model=ModelConfig(
            name="grid_sevitar",
            arguments={**MINI_ARGUMENTS, "num_orders": 0},
            init_from="marey-mini-rgb",
            freeze=("patch_embed", "grid_head"),
        ),
        data=DataConfig(
            val_fraction=0.2,
            preprocess=preprocess,
            feature_cache=FeatureCacheConfig(variants=6, views=3),
        ),
        augment=Augment(
            preprocess=preprocess,
            crop="random_resized",
            area_range=(0.6, 1.0),
            aspect_range=(0.85, 1.18),
            flip=0.5,
            brightness=0.2,
            contrast=0.2,
        ),
        optim=OptimConfig(
            name="adamw",
            lr=1e-4,
            weight_decay=0.05,
            layer_decay=0.75,
            schedule="cosine",
            warmup=0.1,
            clip_norm=1.0,
        ),
        objective=ObjectiveConfig(classification=ClassificationConfig(label_smoothing=0.1)),
        train=RunConfig(epochs=6, batch_size=16, average="ema", ema_decay=0.95, patience=8),
    )
