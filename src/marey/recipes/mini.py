"""What trains the bundled `marey-mini`: rendered motion capture."""

from __future__ import annotations

from marey.training.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, RunConfig, TrainConfig
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


def mini_mocap() -> TrainConfig:
    """Train a small directed transformer on clips made by `marey data render mocap --out DIR --clips N`.

    No clip is mirrored: left and right differ in the captured motions, and so does what mirroring would call them.
    """
    preprocess = Preprocess(sampling=ClipSampling(kind="equidistant", num_frames=8), short_side=64, image_size=64)
    return TrainConfig(
        recipe="mini_mocap",
        model=ModelConfig(name="direcformer", arguments={
            "num_orders": 0, "patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "stem": "conv",
            "drop_path": 0.1}),
        data=DataConfig(preprocess=preprocess),
        augment=Augment(preprocess=preprocess, crop="random_resized", area_range=(0.6, 1.0), flip=0.0, brightness=0.3,
                        contrast=0.3, saturation=0.3, grey=0.1),
        optim=OptimConfig(name="adamw", lr=1e-3, weight_decay=0.05, schedule="cosine", warmup=0.05, clip_norm=1.0),
        objective=ObjectiveConfig(label_smoothing=0.05),
        train=RunConfig(epochs=20, batch_size=32, average="ema", ema_decay=0.998),
    )
