"""The small clean and perturbed sets of `marey reproduce sevitar`: clips and their stem features,
made once and stored.

Perturbed as the ROSE challenge's sets are: every test clip gets one kind and one severity, drawn
from its name.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from marey.corruptions import SEVERITIES
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset
from marey.datasets.pack import open_packed
from marey.datasets.perturb_plan import ROSE_RANDOM, Job, draw_corruption, plan, video_seed
from marey.datasets.perturb_video import perturbed_frames
from marey.errors import UserError
from marey.features.cache import FeatureCache, cache_key
from marey.files import atomic, file_identity, weights_digest
from marey.labels.embed import embed_labels
from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD
from marey.models import create_model
from marey.papers.cells import read_tables
from marey.papers.direcformer_mini import recorded_features
from marey.synthetic.dataset import RenderPlan
from marey.synthetic.motion import list_actions
from marey.training.feature_cache import run_trunk
from marey.training.initialise import fill_stem
from marey.transforms.functional import crop, crop_offsets, resize_short_side
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.sampling import ClipSampling

FRAMES = 8
STEM_ARGUMENTS = read_tables("sevitar")["settings"]["stem"]
"""The transformer of the mini lines on its frozen ImageNet stem."""
STEM_PIXELS, CONV_PIXELS = 96, 64
"""Side of the clips the stem sees, and of those a model without stem (I3D) sees."""
MOCAP_CLIPS = 5000
MOCAP_PLAN = RenderPlan(size=112, seed=1)
MOCAP_TRAIN = 2400
"""Training clips of the mocap set; all its test clips are used."""
SAMPLING = ClipSampling(
    kind="uniform", num_frames=FRAMES, stride_frames=1, target_fps=4.0, view_start="offset"
)
WINDOW_STRIDE = 8
"""A clip of a real video is 8 frames, 8 apart, from its middle; training also takes it 8 frames
earlier and later."""


@dataclass(frozen=True)
class Part:
    """Training clips, test clips, or perturbed test clips of one set."""

    features: Tensor
    """float16, (N, T, patches, C): what the frozen stem makes of the clips at 96 pixels."""
    pixels: Tensor
    """uint8, (N, T, 3, 64, 64): the same clips, small."""
    labels: Tensor
    """int64, (N,)."""


@dataclass(frozen=True)
class MiniSet:
    """One data set with its perturbed copy."""

    name: str
    class_names: tuple[str, ...]
    train: Part
    test: Part
    perturbed: Part
    """The test clips in the same order, each under one kind and severity."""


@functools.lru_cache(maxsize=2)
def open_mini_set(name: str, cache: Path, data: str | None = None) -> MiniSet:
    """Return a set from the cache, made now if it is not there.

    Args:
        name: "mocap", or anything else for the videos in `data`.
        data: folder with training and test videos; without splits, "set1" in a name is training and
            "set2" test, as in UT-Interaction.

    Raises:
        UserError: if there are no training or no test videos, or something needed is not installed.
    """
    features = FeatureCache(cache / "features")
    weights = weights_digest(image_stem().trunk.state_dict())
    if name == "mocap":
        names = tuple(list_actions("none"))
        key = cache_key(
            kind="sevitar mini set", plan=repr(MOCAP_PLAN), clips=MOCAP_CLIPS, weights=weights
        )
        stored = features.get_or_make(key, lambda: make_mocap(features, cache / "mocap", names))
    else:
        index = split_index(str(data))
        names = index.class_names
        files = [file_identity(sample.path) for sample in index.samples]
        key = cache_key(kind="sevitar mini set", files=files, weights=weights)
        stored = features.get_or_make(key, lambda: make_videos(index))
    parts = {
        part: Part(*(stored[f"{part}.{field}"] for field in ("features", "pixels", "labels")))
        for part in ("train", "test", "perturbed")
    }
    return MiniSet(name, names, **parts)


def label_vectors(names: Sequence[str], cache: Path) -> Tensor:
    """Return unit vectors (K, E) of class names by the default sentence model, stored for the next
    cell."""
    digest = hashlib.sha256(repr(tuple(names)).encode()).hexdigest()[:12]
    path = cache / f"labels-{digest}.safetensors"
    if not path.is_file():
        found = embed_labels(names)
        vectors = zip(names, found.vectors, strict=True)
        with atomic(path) as temporary:
            save_file({name: vector.clone() for name, vector in vectors}, temporary)
    return embed_labels(names, path).vectors


# ---- rendered motion capture
# ------------------------------------------------------------------------------


def make_mocap(cache: FeatureCache, root: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Render clips, take them in the direction of the recording, and perturb the test clips.

    A clip is 8 frames at 4 frames a second, so the temporal kinds reorder these eight and codecs
    see 4 frames a second.
    """
    stem = image_stem()
    features, recorded, _ = recorded_features(
        root,
        cache,
        MOCAP_CLIPS,
        MOCAP_PLAN,
        functools.partial(run_trunk, stem),
        weights_digest(stem.trunk.state_dict()),
        stem_preprocess(),
    )
    packed, samples = open_packed(root), open_dataset(root).samples[: len(features)]
    turned = [str(sample.label) not in names for sample in samples]
    numbers = [names.index(name) for name in recorded]
    made: dict[str, Tensor] = {}
    forward: list[Tensor] = []
    places: list[int] = []
    for part, limit in (("train", MOCAP_TRAIN), ("test", len(samples))):
        places = [place for place, sample in enumerate(samples) if sample.split == part][:limit]
        frames = [packed.frames(int(samples[place].row or 0)) for place in places]
        forward = [
            clip.flip(0) if turned[place] else clip
            for clip, place in zip(frames, places, strict=True)
        ]
        made |= {
            f"{part}.features": features[places],
            f"{part}.pixels": torch.stack([small(clip) for clip in forward]),
            f"{part}.labels": torch.tensor([numbers[place] for place in places]),
        }
    perturbed = [
        perturb(clip, f"mocap#{place}", packed.fps)
        for clip, place in zip(forward, places, strict=True)
    ]
    return made | {
        f"perturbed.{key}": value for key, value in describe(perturbed, made["test.labels"]).items()
    }


def perturb(frames: Tensor, name: str, fps: float) -> Tensor:
    """Corrupt one clip, uint8 (T, 3, H, W), by the kind and severity drawn from its name, as `marey
    corrupt` draws."""
    change = draw_corruption(name, SEVERITIES)
    generator = torch.Generator().manual_seed(video_seed(0, name, change.name, change.severity))
    return change(frames, generator=generator, fps=fps)


# ---- videos
# ------------------------------------------------------------------------------


def split_index(data: str) -> DatasetIndex:
    """Open a folder of videos and see that it has training and test videos.

    Raises:
        UserError: if not.
    """
    index = open_dataset(data)
    if not index.splits:
        index = open_dataset(data, split_by="(?P<train>set1)|(?P<test>set2)")
    if not {"train", "test"} <= set(index.splits):
        raise UserError(
            f"{data}: needs the splits train and test, has {', '.join(index.splits) or 'none'}; "
            "make them with 'marey data split'"
        )
    return index


def make_videos(index: DatasetIndex) -> dict[str, Tensor]:
    """Decode every video once; training clips also mirrored and shifted in time, test videos also
    perturbed.

    The test video is perturbed as a whole, at its own rate, before its eight frames are taken.
    """
    made: dict[str, Tensor] = {}
    train = index.split("train")
    clips = [
        (clip, train.label_index(sample))
        for sample in train.samples
        for clip in training_clips(sample)
    ]
    made |= _named("train", clips)
    test = index.split("test")
    jobs = plan(test, Path("."), [ROSE_RANDOM], SEVERITIES, profile="rose", seed=0, short_side=112)
    by_name = {job.name: job for job in jobs}
    for part in ("test", "perturbed"):
        clips = [
            (
                middle(whole_video(by_name[test.relative_path(sample)], part == "perturbed")),
                test.label_index(sample),
            )
            for sample in test.samples
        ]
        made |= _named(part, clips)
    return made


def _named(part: str, clips: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    found = describe([clip for clip, _ in clips], torch.tensor([label for _, label in clips]))
    return {f"{part}.{key}": value for key, value in found.items()}


def training_clips(sample: Sample) -> Iterator[Tensor]:
    """Yield six clips of a training video, uint8 (T, 3, 112, 112): three times, each also
    mirrored."""
    with open_video(sample.path) as reader:
        length = reader.num_frames
        for shift in (0, -WINDOW_STRIDE, WINDOW_STRIDE):
            indices = [min(max(i + shift, 0), length - 1) for i in window(length)]
            frames = square(reader.frames_at(indices).frames)
            yield frames
            yield frames.flip(-1)


def whole_video(job: Job, perturbed: bool) -> Tensor:
    """Return all frames of a test video at short side 112, uint8 (L, 3, H, W), perturbed or
    clean."""
    with open_video(job.source) as reader:
        if perturbed:
            return torch.cat(list(perturbed_frames(job, reader)))
        return torch.cat([resize_short_side(clip.frames, 112) for clip in reader.iterate()])


def window(length: int) -> list[int]:
    """Return the eight frame indices in the middle of a video of `length` frames."""
    sampling = replace(SAMPLING, stride_frames=WINDOW_STRIDE, target_fps=None)
    return sampling.indices(length)


def middle(frames: Tensor) -> Tensor:
    """Take the eight frames in the middle of a video, cut square."""
    return square(frames[window(len(frames))])


def square(frames: Tensor) -> Tensor:
    """Resize to short side 112 and cut the middle square."""
    frames = resize_short_side(frames, 112)
    ((top, left),) = crop_offsets(frames.shape[-2], frames.shape[-1], 112, 1)
    return crop(frames, top, left, 112, 112)


# ---- what models see
# ------------------------------------------------------------------------------


def small(frames: Tensor) -> Tensor:
    """Shrink a square clip to the side a model without stem sees."""
    return resize_short_side(frames, CONV_PIXELS)


def stem_preprocess() -> Preprocess:
    """Return what turns a clip into the stem's input: 8 frames at 4 a second, 96 pixels, ImageNet's
    normalisation."""
    return Preprocess(
        sampling=SAMPLING,
        short_side=STEM_PIXELS,
        image_size=STEM_PIXELS,
        mean=LITE0_MEAN,
        std=LITE0_STD,
    )


def image_stem() -> nn.Module:
    """Return the frozen EfficientNet-Lite0 of the mini lines with its ImageNet weights, in
    evaluation mode."""
    model = create_model("timesformer", num_classes=0, **STEM_ARGUMENTS)
    fill_stem(model)
    return model.patch_embed.eval()  # type: ignore[union-attr,operator]


def conv_preprocess() -> Preprocess:
    """Return what turns a small clip into I3D's input."""
    return Preprocess(sampling=SAMPLING, short_side=CONV_PIXELS, image_size=CONV_PIXELS)


def describe(clips: list[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Send clips, uint8 (T, 3, 112, 112), through the stem; returns the fields of a `Part`."""
    preprocess, stem = stem_preprocess(), image_stem()
    features: list[Any] = []
    for start in range(0, len(clips), 32):
        batch = torch.stack([preprocess.clip(clip, 1)[0] for clip in clips[start : start + 32]])
        features.append(run_trunk(stem, batch).half())
    return {
        "features": torch.cat(features),
        "pixels": torch.stack([small(clip) for clip in clips]),
        "labels": labels,
    }
