"""SeViTAR's experiments (section 4.1) as recipes, and a small SeViTAR on a user's folder.

8 frames of 224 pixels, patches of 16, q = 768, A = 12 heads, SGD 0.002, batch 8. The paper does not
give the widths of the two MLPs, the number of epochs, or how the backbone was started; here the
MLPs have one hidden layer of q values, 15 epochs follow TimeSformer, and the start is ImageNet's
ViT-B/16 where the user gives it (`--set model.init_from=DIR`, made by `marey convert --from vit`).
"""

from __future__ import annotations

from dataclasses import replace

from marey.recipes.mini import MINI_ARGUMENTS, mini_preprocess
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from marey.training.data_config import DataConfig
from marey.training.objective_config import ClassificationConfig, LabelConfig, ObjectiveConfig
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


def _paper(recipe: str) -> TrainConfig:
    preprocess = Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=8, stride_frames=32, target_fps=30.0),
        short_side=256,
        image_size=224,
    )
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(
            name="sevitar",
            arguments={"position_embedding": "joint", "label_hidden": [768], "class_hidden": [768]},
        ),
        data=DataConfig(preprocess=preprocess),
        augment=Augment(
            preprocess=preprocess, crop="short_side_jitter", short_side_range=(256, 256), flip=0.5
        ),
        optim=OptimConfig(
            name="sgd",
            lr=0.002,
            momentum=0.9,
            weight_decay=1e-4,
            schedule="constant",
            clip_norm=1.0,
        ),
        objective=ObjectiveConfig(
            weights={"class": 1.0, "label": 1.0},
            label=LabelConfig(loss="mse", stage_shares=(0.5, 0.25, 0.25)),
        ),
        train=RunConfig(epochs=15, batch_size=8, unused_parameters=True),
    )


def sevitar_ucf101() -> TrainConfig:
    """Train SeViTAR on UCF101 (89.35 on UCF-101P in Table 1).

    `--set objective.label.stage_shares=null` trains its parts together, not one after the other.
    """
    return _paper("sevitar_ucf101")


def sevitar_hmdb51() -> TrainConfig:
    """Train SeViTAR on HMDB51 (78.92 on HMDB-51P in Table 1)."""
    return _paper("sevitar_hmdb51")


def sevitar_kinetics400() -> TrainConfig:
    """Train SeViTAR on the 80,000 Kinetics-400 videos of section 4.2 (65.22 in Table 1)."""
    config = _paper("sevitar_kinetics400")
    return replace(config, data=replace(config.data, limit=80_000))


def sevitar_folder() -> TrainConfig:
    """Train a small SeViTAR on a folder of videos, from the weights of `marey-mini-rgb`, in minutes
    on a CPU for a few dozen.

    The stem is frozen. Every clip is a window of 1.75 s at one size, twice as long as that model's.
    To recognise your own actions `marey teach` is better; this is for studying the network.
    """
    preprocess = mini_preprocess()
    preprocess = replace(preprocess, sampling=replace(preprocess.sampling, target_fps=4.0))
    return TrainConfig(
        recipe="sevitar_folder",
        model=ModelConfig(
            name="sevitar",
            arguments={**MINI_ARGUMENTS, "num_orders": 0},
            init_from="marey-mini-rgb",
            freeze=("patch_embed",),
        ),
        data=DataConfig(val_fraction=0.2, preprocess=preprocess),
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
        objective=ObjectiveConfig(
            weights={"class": 1.0, "label": 0.5},
            classification=ClassificationConfig(label_smoothing=0.1),
            label=LabelConfig(loss="cosine"),
        ),
        train=RunConfig(epochs=6, batch_size=16, average="ema", ema_decay=0.95, patience=8),
    )
