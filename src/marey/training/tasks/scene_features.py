"""Stored features of the image stem below a detector (`data.feature_cache`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.load import load_model
from marey.errors import UserError
from marey.features.cache import FeatureCache, cache_key
from marey.files import weights_digest
from marey.layers.efficientnet_lite import load_imagenet_stem
from marey.models.trunks import FrameTrunk
from marey.training.config import TrainConfig
from marey.training.feature_cache import StoredFeatures, store_items
from marey.training.task import Task


def store_scene_features(config: TrainConfig, task: Task) -> Task:
    """Return a detection task, its clips replaced by stored stem features.

    Raises:
        UserError: if the stem learns, or the boxes are not the detector's own or the truth.
    """
    settings, arguments = config.data.feature_cache, config.model.arguments
    assert settings is not None
    if (
        arguments.get("trunk") != "efficientnet_lite0"
        or config.objective.detection.boxes == "predicted"
    ):
        raise UserError(
            "data.feature_cache stores the features of model.arguments.trunk=efficientnet_lite0, "
            "for boxes of one's own or the truth; set data.feature_cache=null"
        )
    if arguments.get("trunk_arguments", {}).get("trained_stages"):
        raise UserError(
            "data.feature_cache stores the features of a stem that does not learn; set "
            "data.feature_cache=null, or model.arguments.trunk_arguments.trained_stages=0"
        )
    stem = SceneStem(image_trunk(config), FeatureCache(settings.folder))
    return replace(
        task,
        train_data=stem.store(task.train_data, settings.variants),
        val_data=None if task.val_data is None else stem.store(task.val_data, 1),
    )


def image_trunk(config: TrainConfig) -> FrameTrunk:
    """Return the trunk with the stem of `model.init_from`, or ImageNet's, in evaluation mode."""
    trunk = FrameTrunk()
    if config.model.init_from is None:
        load_imagenet_stem(trunk.stem)
    else:
        trained: Any = load_model(config.model.init_from)
        trunk.stem.load_state_dict(trained.trunk.stem.state_dict())
    return trunk.eval()


class SceneStem:
    """Encodes scenes with a frozen image stem; variant v of item i is `data[(v, i)]`."""

    def __init__(self, trunk: FrameTrunk, cache: FeatureCache) -> None:
        self.trunk, self.cache = trunk, cache
        self.digest = weights_digest(trunk.stem.state_dict())

    def store(self, data: Any, variants: int) -> StoredFeatures:
        """Send the items through the stem that are not in the cache yet."""
        keys = [
            [
                cache_key(weights=self.digest, scene=data.identity(i), variant=number)
                for number in range(variants)
            ]
            for i in range(len(data))
        ]
        return store_items(
            self.cache,
            keys,
            lambda i: [self.encode(data[(number, i)]) for number in range(variants)],
        )

    @torch.no_grad()
    def encode(self, item: dict[str, Any]) -> dict[str, Tensor]:
        """Return boxes and labels of an item, and its features in half precision."""
        fine, coarse = self.trunk.stem_features(item["clip"])
        return {
            "boxes_xyxy_norm": item["boxes_xyxy_norm"],
            "labels": item["labels"],
            "fine": fine.half(),
            "coarse": coarse.half(),
        }
