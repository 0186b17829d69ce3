"""A small fingerprint of what a video shows, to find the same video twice: re-encoded, resized or
renamed.

Three frames (at 1/6, 1/2 and 5/6 of the video) as 16 x 16 grey thumbnails. Two videos are
near-duplicates where, at every one of the three, the thumbnails differ little on average AND
nowhere much: a static camera makes the average small between different videos, but a person who
stands elsewhere makes one cell differ. Cut, mirrored and cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from marey.transforms.functional import resize
from marey.video.decode import VideoReader

SIDE = 16
"""Height and width of a thumbnail, in pixels."""
MEAN_DIFFERENCE = 2.5
"""Largest mean absolute difference of near-duplicates, in grey levels, after the mean of each
thumbnail is taken off."""
LARGEST_DIFFERENCE = 14.0
"""Largest difference of any cell of near-duplicates, in grey levels."""
PLAIN = 6.0
"""A thumbnail whose deviation is below this (black, fog) shows too little to be compared."""


def fingerprint(
    reader: VideoReader, start_seconds: float | None = None, end_seconds: float | None = None
) -> np.ndarray:
    """Return float32 (3, 16, 16): grey thumbnails in [0, 255] of three frames of a video, or of a
    stretch of it.

    Raises:
        VideoError: if one of the frames cannot be decoded.
    """
    first, stop = reader.frame_range(start_seconds, end_seconds)
    L = stop - first
    frames = reader.frames_at([first + min(L * k // 6, L - 1) for k in (1, 3, 5)]).frames
    grey = [
        resize(frame[None].to(torch.float32).mean(1, keepdim=True), SIDE, SIDE) for frame in frames
    ]
    return torch.cat(grey)[:, 0].numpy()


def near_duplicates(fingerprints: Sequence[np.ndarray | None]) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of near-duplicates; None stands for a video without a
    fingerprint.

    All pairs are compared in blocks: candidates by the mean difference of the first moments, then
    cell by cell.
    """
    given = [
        i
        for i, print_ in enumerate(fingerprints)
        if print_ is not None and print_.std(axis=(1, 2)).min() >= PLAIN
    ]
    if len(given) < 2:
        return []
    cells = np.stack([fingerprints[i] for i in given]).reshape(len(given), 3, -1)  # type: ignore[misc]
    cells = cells - cells.mean(-1, keepdims=True)
    flat = cells.reshape(len(given), -1).astype(np.float32)
    square = (flat**2).sum(1)
    pairs = []
    limit = flat.shape[1] * (2 * MEAN_DIFFERENCE) ** 2  # a bound on the squared distance, generous
    for begin in range(0, len(flat), 1024):
        block = slice(begin, begin + 1024)
        distance = square[block, None] + square[None] - 2 * flat[block] @ flat.T
        for a, b in np.argwhere(distance < limit):
            i, j = begin + int(a), int(b)
            if i < j and is_near(cells[i], cells[j]):
                pairs.append((given[i], given[j]))
    return pairs


def is_near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sets of thumbnails (3, cells), each of mean 0, belong to the same video."""
    gap = np.abs(one - other)
    return bool((gap.mean(-1) <= MEAN_DIFFERENCE).all() and gap.max() <= LARGEST_DIFFERENCE)
