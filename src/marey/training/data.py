"""The videos of a configuration, their splits, and how they become clips."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from marey.checkpoints.load import load_checkpoint
from marey.datasets.index import DatasetIndex
from marey.datasets.open import open_dataset
from marey.datasets.split import split_for_training, without_classes
from marey.errors import UserError
from marey.training.config import TrainConfig
from marey.training.data_config import DataConfig
from marey.transforms.preprocess import Preprocess


def open_splits(config: DataConfig, seed: int) -> tuple[DatasetIndex, DatasetIndex | None]:
    """Open the training and validation videos of a configuration.

    Raises:
        UserError: if there is no data, a single class, a sample without label, or a validation
            label absent from training.
    """
    if config.path is None:
        raise UserError(
            "no data: give --data a folder of class folders or a manifest.csv (or set data.path)"
        )
    index = open_dataset(config.path, dataset=config.dataset, split_by=config.split_by)
    index = without_classes(index, config.unseen_classes)
    train, val = split_for_training(
        index, val_fraction=config.val_fraction, limit=config.limit, seed=seed
    )
    untaught = [name for name, count in train.class_counts.items() if not count]
    if untaught:
        warnings.warn(
            f"{train.root}: classes without a training video, which the model cannot learn: "
            + ", ".join(untaught),
            stacklevel=2,
        )
    return train, val


def preprocess_of(config: TrainConfig) -> Preprocess:
    """Return the preprocessing of the configuration, else of the checkpoint it starts from.

    Raises:
        UserError: if neither says.
    """
    if config.data.preprocess is not None:
        return config.data.preprocess
    if config.model.init_from is None:
        raise UserError(
            "no preprocessing: set data.preprocess.image_size and the like, or model.init_from"
        )
    found = load_checkpoint(config.model.init_from).preprocess
    if found is None:
        raise UserError(
            f"{config.model.init_from}: has no preprocessing; set data.preprocess.image_size and "
            "the like"
        )
    return found


def augment_of(config: TrainConfig, preprocess: Preprocess) -> Any:
    """Return the run's augmentation, made to end in the run's preprocessing."""
    return None if config.augment is None else replace(config.augment, preprocess=preprocess)


def draws_frames(config: DataConfig, preprocess: Preprocess) -> bool:
    """Return whether the frames of training clips are drawn anew in every epoch."""
    return config.draw_frames or preprocess.sampling.kind == "random"


def clip_arguments(preprocess: Preprocess) -> dict[str, Any]:
    """Return the model arguments that follow from the preprocessing."""
    return {"num_frames": preprocess.sampling.num_frames, "image_size": preprocess.image_size}
