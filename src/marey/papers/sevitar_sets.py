"""The data sets of `marey reproduce sevitar-decided`: stored features and how they are split.

mocap: new renders of the 23 classes of `marey-mini-rgb`, by that model's z (0.84 top-1 of its own
test clips). It learned class, order and label together, so that its z may already hold the meaning
of a label: an advantage of the heads that are trained towards meanings.
ut_interaction, surv_fight: the frozen ImageNet network of `marey teach` ("frames"), of which the
heads read the principal components.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.checkpoints.encoders import bundled_frames, frames_preprocess
from marey.checkpoints.load import load_checkpoint
from marey.datasets.index import DatasetIndex
from marey.datasets.open import open_dataset
from marey.datasets.pack import open_packed
from marey.errors import UserError
from marey.features.cache import FeatureCache, cache_key
from marey.features.videos import encode_videos
from marey.files import weights_digest
from marey.papers.direcformer_mini import convolve, mini_stem
from marey.recipes.mini import mini_preprocess
from marey.synthetic.dataset import RenderPlan, render_dataset
from marey.synthetic.motion import REVERSALS, list_actions
from marey.teaching.folds import folds_of
from marey.teaching.ridge import standardise
from marey.transforms.preprocess import Preprocess

MOCAP_CLIPS = 3200
MOCAP_PLAN = RenderPlan(
    size=112, fps=8.0, seed=23, splits=("train",) * 8 + ("val",) + ("test",) * 4
)
"""1970 clips to train on, 246 to tune on, 984 to test on; other renders than those that
`marey-mini-rgb` was trained on."""
IMAGE_PIXELS = 96
RECORDED = {"train": 600, "test": 300}
"""Clips of the recordings that unseen actions are measured on."""
WIDTH = 32
"""D of the real videos: principal components of the training videos of a fold."""
WORDS = Path(__file__).with_name("sevitar_words.vec")
"""GloVe vectors (Pennington et al., 2014; 6B tokens, 50 values; public domain) of the words in the
names of the classes. Sent2Vec, too, averages vectors of words (and of word pairs)."""
CONFUSABLE = {
    "mocap": tuple(name for pair in REVERSALS.items() for name in pair),
    "ut_interaction": ("kick", "punch", "push"),
    "surv_fight": (),
}
"""Classes that look alike: a motion and the same played backwards; blows between two people. The
paper's own example is "skiing" and "slalom skiing"."""


@dataclass(frozen=True)
class Split:
    """Rows of a data set, int64."""

    train: Tensor
    test: Tensor


@dataclass(frozen=True, kw_only=True)
class HeadSet:
    """One data set for heads."""

    name: str
    class_names: tuple[str, ...]
    features: Tensor
    """(M, Q), from a frozen backbone."""
    labels: Tensor
    """int64, (M,)."""
    groups: tuple[str, ...]
    """Scene, take or clip of each video."""
    outer: tuple[Split, ...]
    """Folds whose test videos are reported."""
    inner: tuple[tuple[Split, ...], ...]
    """For each block of outer folds, splits of videos that none of its folds tests."""
    block_of: tuple[int, ...]
    """Block of each outer fold."""
    width: int | None
    """Principal components that are read; None reads the features."""
    about: dict[str, Any]
    """What the result file says of the backbone."""

    made: dict[bytes, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """What `z` has returned, by its training rows."""

    def z(self, train: Tensor) -> Tensor:
        """Return float32 (M, D), standardised by the training rows alone; computed once."""
        key = train.numpy().tobytes()
        if key not in self.made:
            self.made[key] = self._z(train)
        return self.made[key]

    def _z(self, train: Tensor) -> Tensor:
        """Compute z.

        With `width`, the principal components of the standardised training rows, at one scale: the
        mean square of all of them is 1. Where there are fewer training rows, the rest is zero.
        """
        values = self.features.double()
        if self.width is None:
            mean, deviation = values[train].mean(0), values[train].std(0).clamp_min(1e-6)
            return ((values - mean) / deviation).float()
        standard = standardise(values[train], [values.shape[1]])
        rows = standard(values[train])
        # Components from the products of the rows: there are fewer rows than features.
        eigenvalues, axes = torch.linalg.eigh(rows @ rows.T)
        kept = min(self.width, len(train) - 1)
        axes, roots = axes[:, -kept:], eigenvalues[-kept:].clamp_min(1e-12).sqrt()
        components = standard(values) @ (rows.T @ (axes / roots))
        components /= components[train].square().mean().sqrt()
        return F.pad(components, (0, self.width - kept)).float()

    def confusable(self) -> Tensor:
        """Return which videos show a class of `CONFUSABLE`, bool (M,)."""
        names = CONFUSABLE.get(self.name, ())
        numbers = [number for number, name in enumerate(self.class_names) if name in names]
        return torch.isin(self.labels, torch.tensor(numbers, dtype=torch.int64))


SET_NAMES = ("mocap", "ut_interaction", "surv_fight")


@functools.lru_cache(maxsize=3)
def open_head_set(name: str, cache: Path, data: str | None) -> HeadSet:
    """Return a data set, its features computed now where they are not stored.

    Args:
        name: of `SET_NAMES`.
        cache: where renders and their features lie.
        data: folder that holds the real videos' folders.

    Raises:
        UserError: if the real videos are not there.
    """
    if name == "mocap":
        return mocap_set(cache)
    folder = Path(str(data)) / name
    if data is None or not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give --data DIR that holds {name}/")
    return video_set(open_dataset(folder), name)


# ---- real videos --------------------------------------------------------------------------------


def video_set(index: DatasetIndex, name: str) -> HeadSet:
    """Return real videos by the features of `marey teach`, in folds that cut no group.

    At most 20 groups are left out one by one, more in ten folds. Settings are tuned in four blocks
    of outer folds, each by two folds of the videos that none of its outer folds tests.
    """
    encoded = encode_videos("frames", index, views=1)
    if encoded.unreadable:
        raise UserError(f"{len(encoded.unreadable)} videos of {index.root} cannot be read")
    labels = [str(sample.label) for sample in encoded.index.samples]
    groups = [str(sample.group) for sample in encoded.index.samples]
    num_groups = len(set(groups))
    folds = folds_of(labels, groups, num_groups if num_groups <= 20 else 10)
    outer, inner, block_of = nested_folds(labels, groups, folds)
    names = tuple(index.class_names)
    return HeadSet(
        name=name,
        class_names=names,
        features=encoded.features[:, 0],
        labels=torch.tensor([names.index(label) for label in labels]),
        groups=tuple(groups),
        outer=outer,
        inner=inner,
        block_of=block_of,
        width=WIDTH,
        about={
            "backbone": "EfficientNet-Lite0 of ImageNet, frozen: statistics over 8 frames of 160 "
            f"pixels, {encoded.features.shape[2]} values; {WIDTH} principal components of the "
            "training videos of a fold",
            "folds": f"{len(outer)}, grouped: {num_groups} groups",
            "videos": len(labels),
        },
    )


def nested_folds(
    labels: Sequence[str], groups: Sequence[str], folds: Tensor, blocks: int = 4
) -> tuple[tuple[Split, ...], tuple[tuple[Split, ...], ...], tuple[int, ...]]:
    """Return outer folds, the inner splits of each block of them, and the block of each."""
    count = int(folds.max()) + 1
    outer = tuple(
        Split((folds != fold).nonzero()[:, 0], (folds == fold).nonzero()[:, 0])
        for fold in range(count)
    )
    block_of = tuple(fold * blocks // count for fold in range(count))
    block_of_video = torch.tensor(block_of)[folds]
    inner = []
    for block in range(blocks):
        rest = (block_of_video != block).nonzero()[:, 0]
        chosen = rest.tolist()
        halves = folds_of([labels[i] for i in chosen], [groups[i] for i in chosen], 2)
        inner.append(tuple(Split(rest[halves != half], rest[halves == half]) for half in (0, 1)))
    return outer, tuple(inner), block_of


# ---- rendered motion capture --------------------------------------------------------------------


def mocap_set(cache: Path) -> HeadSet:
    """Return the 23 classes of rendered motion capture by z of `marey-mini-rgb`."""
    root = render_dataset(cache / "mocap-23", MOCAP_CLIPS, MOCAP_PLAN, workers=0)
    samples = open_dataset(root).samples[:MOCAP_CLIPS]
    names = MOCAP_PLAN.class_names()
    labels = torch.tensor([names.index(str(sample.label)) for sample in samples])
    train, val, test = (
        torch.tensor([i for i, sample in enumerate(samples) if sample.split == split])
        for split in ("train", "val", "test")
    )

    backbone = load_checkpoint("marey-mini-rgb")
    store = FeatureCache(cache / "features")
    key = cache_key(
        kind="z and logits of renders",
        plan=repr(MOCAP_PLAN),
        clips=MOCAP_CLIPS,
        weights=weights_digest(backbone.model.state_dict()),
    )

    def make() -> dict[str, Tensor]:
        return outputs_of(backbone.model.eval(), stored_convolutions(store, root, samples))

    made = store.get_or_make(key, make)
    right = made["logits"].argmax(1) == labels
    return HeadSet(
        name="mocap",
        class_names=tuple(names),
        features=made["embedding"],
        labels=labels,
        groups=tuple(str(i) for i in range(len(samples))),
        outer=(Split(train, test),),
        inner=((Split(train, val),),),
        block_of=(0,),
        width=None,
        about={
            "backbone": "marey-mini-rgb, which learned class, order and label together; none of "
            "these clips was in its training",
            "own_top1_on_test": round(100 * float(right[test].double().mean()), 2),
            "clips": {"train": len(train), "val": len(val), "test": len(test)},
        },
    )


def convolution_means(cache: Path) -> Tensor:
    """Return what the convolutions below the backbone make of the renders, float32 (M, 2 * C): mean
    and deviation over patches and time."""
    root = render_dataset(cache / "mocap-23", MOCAP_CLIPS, MOCAP_PLAN, workers=0)
    samples = open_dataset(root).samples[:MOCAP_CLIPS]
    features = stored_convolutions(FeatureCache(cache / "features"), root, samples)
    parts = [part.float().flatten(1, 2) for part in features.split(256)]
    return torch.cat([torch.cat((part.mean(1), part.std(1)), dim=1) for part in parts])


def stored_convolutions(store: FeatureCache, root: Path, samples: Sequence[Any]) -> Tensor:
    """Return float16 (M, T, patches, C) of renders by the convolutions of `marey-mini-rgb`."""
    return stored_renders(
        store,
        root,
        samples,
        convolve,
        mini_preprocess(),
        weights_digest(mini_stem().trunk.state_dict()),
    )


def stored_renders(
    store: FeatureCache,
    root: Path,
    samples: Sequence[Any],
    encode: Callable[[Tensor], Tensor],
    preprocess: Preprocess,
    weights: str,
) -> Tensor:
    """Return what a frozen network makes of renders, float16 (M, ...), from the cache.

    Args:
        encode: clips (B, T, 3, H, W) to features (B, ...).
        weights: digest of the network.
    """

    def make() -> dict[str, Tensor]:
        packed, parts = open_packed(root), []
        for start in range(0, len(samples), 32):
            frames = [packed.frames(int(s.row or 0)) for s in samples[start : start + 32]]
            parts.append(encode(torch.stack([preprocess.clip(clip)[0] for clip in frames])).half())
        return {"features": torch.cat(parts)}

    rows = [int(sample.row or 0) for sample in samples]
    key = cache_key(
        kind="renders", plan=repr(MOCAP_PLAN), rows=rows, preprocess=repr(preprocess), of=weights
    )
    return store.get_or_make(key, make)["features"]


@torch.inference_mode()
def outputs_of(model: nn.Module, features: Tensor) -> dict[str, Tensor]:
    """Return "embedding" (M, D) and "logits" (M, K) of stored features."""
    found = [model(part.float()) for part in features.split(64)]
    return {name: torch.cat([part[name] for part in found]) for name in ("embedding", "logits")}


@functools.lru_cache(maxsize=1)
def recorded_set(cache: Path) -> HeadSet:
    """Return the 15 recordings, not played backwards, by the image network of ImageNet.

    No part of that network ever saw a class of motion capture, so that classes can be left out of
    training altogether.
    """
    root = render_dataset(cache / "mocap-23", MOCAP_CLIPS, MOCAP_PLAN, workers=0)
    names = list_actions("none")
    recorded = [s for s in open_dataset(root).samples[:MOCAP_CLIPS] if s.label in names]
    samples = [
        sample
        for split, count in RECORDED.items()
        for sample in [sample for sample in recorded if sample.split == split][:count]
    ]
    network = bundled_frames().eval()

    @torch.inference_mode()
    def encode(clips: Tensor) -> Tensor:
        return network(clips)["embedding"]  # type: ignore[no-any-return]

    features = stored_renders(
        FeatureCache(cache / "features"),
        root,
        samples,
        encode,
        frames_preprocess(num_frames=8, image_size=IMAGE_PIXELS),
        weights_digest(network.state_dict()),
    )
    train, test = (
        torch.tensor([i for i, sample in enumerate(samples) if sample.split == split])
        for split in ("train", "test")
    )
    return HeadSet(
        name="recordings",
        class_names=tuple(names),
        features=features.float(),
        labels=torch.tensor([names.index(str(sample.label)) for sample in samples]),
        groups=tuple(str(i) for i in range(len(samples))),
        outer=(Split(train, test),),
        inner=(),
        block_of=(0,),
        width=WIDTH,
        about={"backbone": f"EfficientNet-Lite0 of ImageNet, 8 frames of {IMAGE_PIXELS} pixels"},
    )
