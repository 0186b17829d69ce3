"""From the bundled weights to the user's own folder of videos."""

from __future__ import annotations

from marey.training.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig, RunConfig, TrainConfig
from marey.transforms.augment import Augment


def finetune_folder() -> TrainConfig:
    """Fine-tune `marey-mini` on a folder of labelled videos; a few dozen clips take minutes on a CPU.

    What keeps few videos from being learned by heart: the stem stays as it is, deeper blocks move less than later ones,
    the class head is first fitted alone on the frozen embedding, and labels are smoothed. The best weights by
    held-out top-1 are kept. Start elsewhere with `--set model.init_from=...`.
    """
    return TrainConfig(
        recipe="finetune_folder",
        model=ModelConfig(init_from="marey-mini", freeze=("patch_embed",)),
        data=DataConfig(val_fraction=0.2),
        augment=Augment(crop="random_resized", area_range=(0.6, 1.0), aspect_range=(0.85, 1.18), flip=0.5,
                        brightness=0.2, contrast=0.2),
        optim=OptimConfig(name="adamw", lr=3e-4, weight_decay=0.05, layer_decay=0.75, schedule="cosine", warmup=0.1,
                          clip_norm=1.0),
        objective=ObjectiveConfig(label_smoothing=0.1),
        train=RunConfig(epochs=20, batch_size=8, average="ema", ema_decay=0.98, patience=8, head_warm_start=True),
    )
