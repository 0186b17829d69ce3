"""The people of a video as one vector: the frozen image network on a square around them.

The square holds the two most present people during the whole window, so it does not move with them
and their motion stays visible in it. Where nobody was found it is the whole picture.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from marey.checkpoints.encoders import bundled_frames, frames_preprocess
from marey.persons.pose_tracks import PoseTracks

PEOPLE = 2
GROWN = 1.25
"""Side of the square, as a multiple of what the people need."""
EDGES = (0.05, 0.95)
"""Quantiles over time of the boxes' edges, so that one wrong box does not count."""
MIN_SIDE = 8
"""Pixels."""
CROP_FPS, CROP_FRAMES = 4.0, 8
CROP_GRID = 2


def people_square(tracks: PoseTracks) -> tuple[int, int, int, int]:
    """Return x, y, x, y in pixels of the square around the most present people, cut at the
    border."""
    width, height = tracks.width, tracks.height
    whole = (0, 0, width, height)
    boxes = [track.boxes_xyxy for track in tracks.tracks[:PEOPLE]]
    if not boxes:
        return whole
    every = np.concatenate(boxes)
    low = np.quantile(every[:, :2], EDGES[0], axis=0)
    high = np.quantile(every[:, 2:], EDGES[1], axis=0)
    middle, half = (low + high) / 2, float(np.max(high - low)) * GROWN / 2
    left, top = np.maximum((middle - half) * height, 0).round().astype(int).tolist()
    right, bottom = ((middle + half) * height).round().astype(int).tolist()
    right, bottom = min(right, width), min(bottom, height)
    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        return whole
    return left, top, right, bottom


@torch.inference_mode()
def crop_vector(frames: Tensor, tracks: PoseTracks) -> Tensor:
    """Describe the square around the people, float32 (`CROP_DIM`,).

    Args:
        frames: uint8 (`CROP_FRAMES`, 3, H, W), `CROP_FPS` a second.
        tracks: of the same stretch; the frames may be smaller or larger than its pictures.
    """
    x_scale, y_scale = frames.shape[3] / tracks.width, frames.shape[2] / tracks.height
    left, top, right, bottom = people_square(tracks)
    columns = slice(int(left * x_scale), max(int(left * x_scale) + 1, round(right * x_scale)))
    rows = slice(int(top * y_scale), max(int(top * y_scale) + 1, round(bottom * y_scale)))
    clip = _preprocess().clip(frames[:, :, rows, columns].contiguous())[0]
    return _network()(clip[None])["embedding"][0]


@lru_cache(maxsize=1)
def _network() -> torch.nn.Module:
    return bundled_frames(num_frames=CROP_FRAMES, grid=CROP_GRID)


_preprocess = lru_cache(maxsize=1)(frames_preprocess)

CROP_DIM = 3 * CROP_GRID**2 * 192
"""Three statistics over time of each channel of each cell."""
