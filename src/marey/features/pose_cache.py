"""The poses of a video from the feature cache: found once, and again where the file or a setting
changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.features.cache import FeatureCache, cache_key
from marey.files import file_identity
from marey.persons.pose_tracks import VERSION, PoseTracks, read_poses
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder


def cached_poses(
    video: str | Path,
    cache: FeatureCache,
    *,
    fps: float = 12.5,
    max_people: int = 10,
    finder: PoseFinder | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    **limits: Any,
) -> PoseTracks:
    """Return `read_poses` of a video, found now where they are not stored.

    Args:
        cache: where they are stored, under the file's path, size and time and every setting. With
            boxes from elsewhere (`PoseFinder.trust_detector`) nothing is stored.
        fps, max_people, finder, start_seconds, end_seconds, limits: as of `read_poses`.

    Raises:
        VideoError: if the video cannot be read.
    """
    finder = pose_finder("auto") if finder is None else finder

    def find() -> PoseTracks:
        return read_poses(
            video,
            fps=fps,
            max_people=max_people,
            finder=finder,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            **limits,
        )

    if finder.trust_detector or not Path(video).exists():
        return find()
    key = cache_key(
        kind="poses",
        version=VERSION,
        video=file_identity(video),
        fps=fps,
        max_people=max_people,
        finder=finder.settings(),
        stretch=[start_seconds, end_seconds],
    )
    stored = cache.get_or_make(key, lambda: to_tensors(find()))
    return from_tensors(stored)


def to_tensors(found: PoseTracks) -> dict[str, Tensor]:
    """Return poses as tensors by name; what is no array is JSON in the bytes of "about"."""
    about = np.frombuffer(found.about().encode(), np.uint8)
    arrays = {"about": about, **found.arrays()}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def from_tensors(tensors: dict[str, Tensor]) -> PoseTracks:
    """Return the poses that `to_tensors` gave."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return PoseTracks.from_arrays(bytes(arrays["about"]).decode(), arrays)
