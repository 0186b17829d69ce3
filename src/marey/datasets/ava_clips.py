"""Clips around the key frames of AVA, with their boxes and labels, as tensors."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from marey.datasets.ava import AvaIndex, KeyFrame, Source, outside_video
from marey.files import file_identity
from marey.transforms.augment import Augment
from marey.transforms.preprocess import Preprocess
from marey.video.decode import VideoReader, open_video


def clip_indices(
    key_index: int, num_source_frames: int, fps: float, preprocess: Preprocess
) -> list[int]:
    """Return the frames of a clip centred on a key frame: range(c - half, c + half, stride),
    clamped to the video.

    Stride is counted at `preprocess.sampling.target_fps` where that is set.
    """
    sampling = preprocess.sampling
    stride = sampling.stride_frames * (fps / sampling.target_fps if sampling.target_fps else 1.0)
    start = key_index - int(sampling.num_frames * stride) // 2
    return [
        min(max(int(start + i * stride + 1e-6), 0), num_source_frames - 1)
        for i in range(sampling.num_frames)
    ]


class AvaDataset(Dataset[dict[str, Any]]):
    """Clips around key frames: `data[(epoch, i)]` -> {"clip", "boxes_xyxy_norm", "labels",
    "sample"[, "proposals"]}.

    "clip" float (T, 3, S, S); "boxes_xyxy_norm" float (P, 4) of the clip's frame after
    augmentation; "labels" float (P, K). An image may have no person (P = 0).

    Args:
        index: key frames.
        preprocess: frames, size and numbers; the whole frame is kept with `resize_mode="stretch"`.
        augment: box-aware flips and crops; a person cut to less than `min_visible` of the box is
            dropped.
        proposals: (video, seconds) -> boxes (R, 4) of an outside detector, handed on with each
            item.
        seed: the augmentation of an item follows from (seed, epoch, i).
    """

    min_visible = 0.3

    def __init__(
        self,
        index: AvaIndex,
        preprocess: Preprocess,
        augment: Augment | None = None,
        *,
        proposals: dict[tuple[str, float], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.index, self.preprocess, self.augment = index, preprocess, augment
        self.seed, self.proposals = seed, proposals

    def __len__(self) -> int:
        return len(self.index.key_frames)

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        epoch, i = where
        key = self.index.key_frames[i]
        frames = self.frames(key)
        boxes, labels = key.boxes_xyxy_norm, key.labels
        proposals = (
            self.proposals.get((key.video, key.seconds), torch.zeros(0, 4))
            if self.proposals
            else None
        )
        if self.augment is None:
            clip = self.preprocess.clip(frames)[0]
        else:
            generator = torch.Generator().manual_seed(
                zlib.crc32(f"{self.seed}/{epoch}/{i}".encode())
            )
            clip, boxes, labels, proposals = augment_scene(
                self.augment, frames, boxes, labels, proposals, generator, self.min_visible
            )
        item = {"clip": clip, "boxes_xyxy_norm": boxes, "labels": labels, "sample": i}
        return item if proposals is None else {**item, "proposals": proposals}

    def identity(self, i: int) -> list[Any]:
        """Return what item i is made of, in JSON types: the key of features stored of it."""
        key = self.index.key_frames[i]
        draw = [repr(self.augment), self.seed, i] if self.augment is not None else None
        return [
            file_identity(self.index.csv_path),
            file_identity(self.index.sources[key.video].path),
            key.video,
            key.seconds,
            self.index.class_names,
            repr(self.preprocess),
            draw,
        ]

    def frames(self, key: KeyFrame) -> Tensor:
        """Decode the frames around a key frame: uint8 (T, 3, H, W).

        Raises:
            UserError: naming file and line, if the key frame is outside the video.
        """
        source = self.index.sources[key.video]
        with open_video(source.path) as reader:
            fps = source.fps or reader.fps
            index = (
                source.key_frame
                if source.key_frame is not None
                else self.key_index(key, source, reader)
            )
            return reader.frames_at(
                clip_indices(index, reader.num_frames, fps, self.preprocess)
            ).frames

    def key_index(self, key: KeyFrame, source: Source, reader: VideoReader) -> int:
        """Return the key frame's index: by counting in a folder, by the time frames are shown at in
        a file."""
        seconds = key.seconds - source.first_second
        if source.fps is not None:
            return round(seconds * source.fps)
        if not 0 <= seconds < reader.duration_seconds:
            raise outside_video(
                key,
                self.index.csv_path,
                f"{reader.duration_seconds:.1f} s, beginning at second {source.first_second:g}",
            )
        return min(bisect_left(reader.frame_seconds, seconds - 1e-6), reader.num_frames - 1)


def augment_scene(
    augment: Augment,
    frames: Tensor,
    boxes: Tensor,
    labels: Tensor,
    proposals: Tensor | None,
    generator: torch.Generator,
    min_visible: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Flip, crop and colour a clip, and take its boxes through the same geometry.

    Persons of whose box less than `min_visible` is left are dropped; so are proposals without area.
    """
    height, width = frames.shape[-2:]
    geometry = augment.geometry(height, width, generator)
    boxes, visible = augment.boxes(boxes, geometry)
    keep = visible >= min_visible
    if proposals is not None:
        proposals, seen = augment.boxes(proposals, geometry)
        proposals = proposals[seen > 0.1]
    return augment.apply(frames, geometry, generator), boxes[keep], labels[keep], proposals


def collate_scenes(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack clips; boxes and labels stay lists, as every clip has its own number of persons."""
    batch: dict[str, Any] = {"sample": torch.tensor([item["sample"] for item in items])}
    for name in ("clip", "fine", "coarse"):  # pixels, or stored features in their place
        if name in items[0]:
            batch[name] = torch.stack([item[name] for item in items])
    for name in ("boxes_xyxy_norm", "labels", "proposals"):
        if name in items[0]:
            batch[name] = [item[name] for item in items]
    return batch
