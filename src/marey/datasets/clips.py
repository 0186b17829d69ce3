"""The clips of a data set as tensors: one per video and epoch for training, all views for
evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.pack import open_packed
from marey.errors import VideoError
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.extension import extend_frames


class Augmentation(Protocol):
    """Training augmentation of one clip, which may also move its label
    (a mirrored "swiping left")."""

    def labelled(
        self, frames: Tensor, label: int, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """Turn uint8 (T, C, H, W) and a class number into float (T, C, S, S) and a class number."""


class ClipDataset(Dataset[dict[str, Any]]):
    """One clip per sample; the randomness of sample i in epoch e comes from (seed, e, i) and from
    nothing else.

    Items are asked for as `(epoch, i)`, so that worker processes need no state. With `augment` the
    clip is sampled and transformed at random; without it, preprocessing is that of evaluation, one
    view.

    Args:
        draw: sample the frames at random also without `augment`: the sampler "random" draws other
            frames in every epoch, "uniform" another start, "segments" another frame of each.
    """

    def __init__(
        self,
        index: DatasetIndex,
        preprocess: Preprocess,
        augment: Augmentation | None = None,
        seed: int = 0,
        *,
        draw: bool = False,
    ) -> None:
        self.index = index
        self.preprocess = preprocess
        self.augment = augment
        self.seed = seed
        self.draw = draw or augment is not None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        """Return `{"clip": (T, C, S, S) float, "label": int, "sample": int}`, or
        `{"error": str, "sample": int}`.

        A video that cannot be read is never replaced: its item holds the error, which
        `collate_clips` passes on in the batch. Asked for by a plain number, as PyTorch's own
        samplers and collation do, all items have the same entries: "error" is empty where there is
        none, and an unreadable video has a clip of zeros with the label -100, which
        `torch.nn.functional.cross_entropy` leaves out.
        """
        if not isinstance(key, tuple):
            item = self[0, key]
            T, S = self.preprocess.sampling.num_frames, self.preprocess.image_size
            nothing = {"clip": torch.zeros(T, 3, S, S), "label": -100, "error": ""}
            return {**nothing, **item}
        epoch, position = key
        sample = self.index.samples[position]
        generator = sample_generator(self.seed, epoch, position) if self.draw else None
        try:
            frames = read_frames(self.index, sample, self.preprocess, generator)
        except VideoError as error:
            return {"error": str(error), "sample": position}
        label = self.index.label_index(sample)
        if self.augment is not None and generator is not None:
            clip, label = self.augment.labelled(frames, label, generator)
        else:
            clip = self.preprocess.clip(frames, num_spatial=1)[0]
        return {"clip": clip, "label": label, "sample": position}


def sample_generator(seed: int, epoch: int, position: int) -> torch.Generator:
    """Return a generator that depends on (seed, epoch, sample) alone, whichever process asks."""
    words = np.random.SeedSequence((seed, epoch, position)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


def read_frames(
    index: DatasetIndex,
    sample: Sample,
    preprocess: Preprocess,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the sampled frames of one sample, uint8 (T, C, H, W).

    Raises:
        VideoError: if the video cannot be read, or its stretch holds no frame.
    """
    if sample.row is not None:
        return _packed_frames(index.root, sample.row, preprocess, generator)
    with open_video(sample.path) as reader:
        return preprocess.sample(
            reader,
            generator=generator,
            start_seconds=sample.start_seconds,
            end_seconds=sample.end_seconds,
        ).frames


def _packed_frames(
    root: Path, row: int, preprocess: Preprocess, generator: torch.Generator | None
) -> Tensor:
    packed = open_packed(root)
    frames = packed.frames(row)
    if frames.shape[0] == preprocess.sampling.num_frames:
        return frames
    chosen = preprocess.sampling.indices(
        frames.shape[0], fps=packed.fps, generator=generator, name=f"row {row}"
    )
    if max(chosen) >= len(frames):  # only `short="extend"` looks past the end
        return extend_frames(frames, max(chosen) + 1)[chosen]
    if len(chosen) < preprocess.sampling.num_frames:  # `short="extend_after"`
        return extend_frames(frames[chosen], preprocess.sampling.num_frames)
    return frames[chosen]


def collate_clips(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the readable items of a batch and name the unreadable ones.

    Returns:
        `{"clip": (B, T, C, S, S), "label": (B,), "sample": (B,), "unreadable":
        [(sample, message), ...]}`; "clip" is absent where no item could be read.
    """
    readable = [item for item in items if not item.get("error")]
    batch: dict[str, Any] = {
        "unreadable": [(item["sample"], item["error"]) for item in items if item.get("error")]
    }
    if readable:
        batch["clip"] = torch.stack([item["clip"] for item in readable])
        batch["label"] = torch.tensor([item["label"] for item in readable])
        batch["sample"] = torch.tensor([item["sample"] for item in readable])
    return batch


class VideoViews(Dataset[dict[str, Any]]):
    """All views of each video of an index, preprocessed."""

    def __init__(self, index: DatasetIndex, preprocess: Preprocess, views: tuple[int, int]) -> None:
        self.index, self.preprocess, self.views = index, preprocess, views

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return {"views": (V, T, C, S, S)}, or {"error": str}."""
        sample, (temporal, spatial) = self.index.samples[position], self.views
        try:
            if sample.row is not None:  # packed: the frames are already sampled
                return {
                    "views": self.preprocess.clip(
                        read_frames(self.index, sample, self.preprocess), spatial
                    )
                }
            with open_video(sample.path) as reader:
                views, _ = self.preprocess.views(
                    reader,
                    temporal,
                    spatial,
                    start_seconds=sample.start_seconds,
                    end_seconds=sample.end_seconds,
                )
            return {"views": views}
        except VideoError as error:
            return {"error": str(error)}
