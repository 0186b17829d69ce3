"""Packed windows of keypoints: what `marey data render poses` writes and a pose model learns from.

The folder holds packed.json ("kind": "poses", the sampling), manifest.csv (path, label, split,
group, source) and keypoints.npy, float16 (N, T, P * 17, 3): x, y in one unit, score.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from marey.datasets.clips import sample_generator
from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.transforms.pose_augment import PoseAugment
from marey.transforms.pose_clip import PoseSampling, normalise_pose

ARRAY = "keypoints.npy"


class PoseWindows(Dataset[dict[str, Any]]):
    """The windows of an index, normalised; with `augment` changed at random, from (seed, epoch, i).

    Args:
        index: of a packed folder of poses, or some of its samples.
        augment: None gives every window as it is stored.

    Raises:
        UserError: if the folder holds no poses.
    """

    def __init__(
        self, index: DatasetIndex, augment: PoseAugment | None = None, seed: int = 0
    ) -> None:
        self.index, self.augment, self.seed = index, augment, seed
        self.sampling = read_sampling(index.root)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        """Return {"clip": float (T, P * 17, 3), "label": int, "sample": int}."""
        epoch, position = key if isinstance(key, tuple) else (0, key)
        sample = self.index.samples[position]
        assert sample.row is not None
        keypoints = torch.from_numpy(open_keypoints(self.index.root)[sample.row].astype(np.float32))
        if self.augment is not None:
            keypoints = self.augment(keypoints, sample_generator(self.seed, epoch, position))
        clip = normalise_pose(keypoints, self.sampling.min_score)
        return {"clip": clip, "label": self.index.label_index(sample), "sample": position}

    def clips(self) -> Tensor:
        """Return all windows, float (N, T, P * 17, 3), not augmented."""
        rows = np.array([sample.row for sample in self.index.samples], np.int64)
        keypoints = open_keypoints(self.index.root)[rows].astype(np.float32)
        return normalise_pose(torch.from_numpy(keypoints), self.sampling.min_score)


@lru_cache(maxsize=8)
def open_keypoints(root: Path) -> NDArray[np.float16]:
    """Open the array (N, T, P * 17, 3) of a packed folder of poses.

    Raises:
        UserError: if it is missing or of another format.
    """
    path = root / ARRAY
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; a pose model learns from what `marey data render poses` writes"
        )
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.float16 or array.ndim != 4 or array.shape[-1] != 3:
        raise UserError(
            f"{path}: {array.dtype} of shape {array.shape}, expected float16 (N, T, keypoints, 3); "
            "render it again"
        )
    return array


def holds_windows(root: str | Path) -> bool:
    """Return whether a folder holds packed windows of keypoints, and not videos."""
    path = Path(root) / "packed.json"
    return path.is_file() and json.loads(path.read_text()).get("kind") == "poses"


def read_sampling(root: Path) -> PoseSampling:
    """Return how the windows of a packed folder were cut.

    Raises:
        UserError: if the folder holds no poses.
    """
    path = root / "packed.json"
    description = json.loads(path.read_text()) if path.is_file() else {}
    if description.get("format") != 1 or description.get("kind") != "poses":
        raise UserError(
            f"{root}: holds no windows of keypoints; a pose model learns from what "
            "`marey data render poses` writes"
        )
    return PoseSampling(**description["sampling"])
