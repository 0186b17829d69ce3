"""The task "arrow_of_time": is a window of keypoints played forwards or backwards? No label is
read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from marey.datasets.clips import collate_clips, sample_generator
from marey.datasets.index import DatasetIndex, Sample, videos_below
from marey.datasets.open import open_dataset
from marey.datasets.poses import ARRAY, open_keypoints, read_sampling
from marey.datasets.seen import describe_records, records_seen
from marey.errors import UserError, VideoError
from marey.features.cache import FeatureCache
from marey.features.pose_cache import cached_poses
from marey.models.arrow_of_time import DIRECTIONS
from marey.training.config import TrainConfig
from marey.training.data_config import DataConfig
from marey.training.task import Task
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm
from marey.transforms.keypoints import NUM_KEYPOINTS
from marey.transforms.pose_augment import PoseAugment
from marey.transforms.pose_clip import PoseSampling, cut_both_ways, normalise_pose


class DirectedWindows(Dataset[dict[str, Any]]):
    """Windows of one person each, every second one played backwards.

    Args:
        clips: float, (N, T, 17, 3), normalised, as they were recorded.
        augment: None gives every window as it is.
        seed: of the augmentation.
    """

    def __init__(self, clips: Tensor, augment: PoseAugment | None = None, seed: int = 0) -> None:
        self.clips, self.augment, self.seed = clips, augment, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        """Return {"clip": float (T, 17, 3), "label": 0 or 1, of `DIRECTIONS`, "sample": int}."""
        epoch, position = key if isinstance(key, tuple) else (0, key)
        clip, backwards = self.clips[position], position % 2
        if self.augment is not None:
            clip = self.augment(clip, sample_generator(self.seed, epoch, position))
        clip = clip.flip(0) if backwards else clip
        return {"clip": clip, "label": backwards, "sample": position}


def build(config: TrainConfig) -> Task:
    """Build the task for a packed folder of windows, or for videos, whose people are found first.

    Validation windows come from recordings that no training window shows: of a packed folder those
    of the split "val" whose recording is not in "train", of videos a share `data.val_fraction` of
    the groups, or of the videos where the data names no groups.

    Raises:
        UserError: if there is no data, or nobody in it.
    """
    if config.data.path is None:
        raise UserError("no data: give --data a folder of videos, or of windows of keypoints")
    index = open_videos(config.data)
    if (index.root / ARRAY).is_file():
        train, val, sampling = packed_windows(index)
    else:
        sampling = PoseSampling()
        train, val = windows_of_videos(
            index, sampling, val_fraction=config.data.val_fraction, seed=config.train.seed
        )
    if not len(train):
        raise UserError(f"{config.data.path}: nobody was found for long enough to learn from")
    return directed_task(config, train, val, sampling)


def open_videos(data: DataConfig) -> DatasetIndex:
    """Open the data as any recipe does, or a folder that holds videos directly, for no label is
    needed; videos of the split "test" are left out of a data set that has one.

    Raises:
        UserError: if nothing is there.
    """
    root = Path(str(data.path))
    if root.is_dir() and (videos := videos_below(root)):
        samples = tuple(Sample(path=video, label=None) for video in videos)
        return DatasetIndex(samples=samples, class_names=(), name="videos", root=root)
    index = open_dataset(root, dataset=data.dataset, split_by=data.split_by)
    if (index.root / ARRAY).is_file():
        return index
    kept = tuple(sample for sample in index.samples if sample.split != "test")
    return replace(index, samples=kept)


def directed_task(config: TrainConfig, train: Tensor, val: Tensor, sampling: PoseSampling) -> Task:
    """Build the task for windows that are already cut.

    Args:
        config: of `arrow_of_time` or `arrow_tune`.
        train: (N, T, 17, 3), normalised, as recorded.
        val: the same of other recordings; without any, nothing is evaluated.
        sampling: how they were cut.
    """
    return Task(
        train_data=DirectedWindows(train, config.data.pose_augment, seed=config.train.seed),
        val_data=DirectedWindows(val) if len(val) else None,
        objective=ClipsObjective(
            config.objective.weights, {"class": ClassTerm()}, num_classes=len(DIRECTIONS)
        ),
        make_evaluator=lambda: ClipsEvaluator(DIRECTIONS),
        model_arguments={"num_frames": sampling.num_frames},
        class_names=DIRECTIONS,
        preprocess=sampling,
        collate=collate_clips,
        describe_training=lambda: describe_records({"clip": clip} for clip in train),
        seen_in_training=lambda tensors: records_seen(({"clip": clip} for clip in val), tensors),
        extra={"data": {"train_windows": len(train), "val_windows": len(val)}},
    )


def packed_windows(index: DatasetIndex) -> tuple[Tensor, Tensor, PoseSampling]:
    """Return the first person's windows of a packed folder.

    Args:
        index: of what `marey data render poses` writes.

    Returns:
        (N, T, 17, 3) for training, the same of validation recordings, and how they were cut.

    Raises:
        UserError: if there is no window to train on.
    """
    chosen = [place for place, sample in enumerate(index.samples) if sample.split == "train"]
    if not chosen:
        raise UserError(f"{index.root}: no window of the split 'train'; render them again")
    train = first_person(index, chosen)
    return train, first_person(index, held_out(index, "val")), read_sampling(index.root)


NOT_CAPTURED = ("composed", "spoiled", "nobody")
"""First part of the groups of windows whose motion nobody made: nothing is measured on them, for
the direction of time of a composition is its author's."""


def is_captured(sample: Sample) -> bool:
    """Return whether a window shows captured motion."""
    return str(sample.group).split("/")[0] not in NOT_CAPTURED


def held_out(index: DatasetIndex, split: str) -> list[int]:
    """Return the places of the captured windows of a split whose recording no training window
    shows."""
    known = {sample.group for sample in index.samples if sample.split == "train"}
    return [
        place
        for place, sample in enumerate(index.samples)
        if sample.split == split and sample.group not in known and is_captured(sample)
    ]


def first_person(index: DatasetIndex, places: Sequence[int]) -> Tensor:
    """Return the first person's windows at some places of a packed folder, (N, T, 17, 3),
    normalised."""
    sampling = read_sampling(index.root)
    rows = np.array([index.samples[place].row for place in places], np.int64)
    keypoints = torch.from_numpy(open_keypoints(index.root)[rows][:, :, :NUM_KEYPOINTS])
    parts = [normalise_pose(part.float(), sampling.min_score) for part in keypoints.split(4096)]
    return torch.cat(parts)


def windows_of_videos(
    index: DatasetIndex, sampling: PoseSampling, *, val_fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Find the people of videos (stored in the feature cache) and cut them into windows.

    Args:
        index: the videos; their labels are not looked at.
        sampling: how tracks are cut.
        val_fraction: share of the groups that is held out.
        seed: of the choice.

    Returns:
        (N, T, 17, 3) for training, the same held out; videos that cannot be read are left out.
    """
    cache = FeatureCache()
    found: dict[str, list[Tensor]] = {}
    for sample in index.samples:
        try:
            people = cached_poses(sample.path, cache)
        except VideoError:
            continue
        group = sample.group or index.relative_path(sample)
        for track in people.tracks:
            windows = cut_both_ways(track.seconds, track.keypoints, sampling)
            if len(windows):
                found.setdefault(group, []).append(normalise_pose(windows, sampling.min_score))
    return hold_out_groups(found, sampling, val_fraction=val_fraction, seed=seed)


def hold_out_groups(
    windows: dict[str, list[Tensor]], sampling: PoseSampling, *, val_fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Divide windows by group: (N, T, 17, 3) for training, and those of a share of the groups."""
    names = sorted(windows)
    random.Random(seed).shuffle(names)
    held_out = names[: int(val_fraction * len(names))]
    nobody = torch.zeros(0, sampling.num_frames, NUM_KEYPOINTS, 3)

    def together(chosen: Sequence[str]) -> Tensor:
        return torch.cat([nobody, *(part for name in chosen for part in windows[name])])

    return together(names[len(held_out) :]), together(held_out)
