"""MoveNet multipose: frames -> people with 17 keypoints each.

Google's MoveNet multipose (Apache License 2.0) is a CenterNet with a MobileNetV2 trunk; its model
card is https://tfhub.dev/google/movenet/multipose/lightning/1. The network's heads are maps of
one cell per 4 x 4 pixels; `decode_people` turns them into people as the published graph does.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from marey.persons.network import sigmoid

Array = NDArray[np.floating]

CELL = 4
"""Pixels per cell of the heads."""

PEAK_WINDOW = 5
"""A person's centre is the highest score among 5 x 5 cells."""

SPREAD = 0.300048828125
"""Squared distance from the regressed keypoint, in shorter sides of the map, at which a score has
fallen to 1/e; the graph's own constant, rounded to 16 bits there."""

COUNTED_KEYPOINT = 0.126953125
"""Keypoints above it count in a person's score; the graph's own constant."""


def decode_people(
    heads: Mapping[str, Array], *, max_people: int = 6, min_center: float = 0.0
) -> tuple[Array, Array, Array]:
    """Read people from the maps of one frame.

    For each peak of the centre map: a box, 17 regressed positions, and near each of those the
    highest score of the keypoint's heat map, moved by an offset of less than a cell. The published
    graph stops at 6 people; here the number is free. A keypoint's score is the highest that any of
    the people gives its cell, as in the graph.

    Args:
        heads: "center" (1, h, w), "heatmap" (17, h, w), "regress" (34, h, w), "offset" (34, h, w),
            "box_scale" and "box_offset" (2, h, w); y before x throughout.
        max_people: largest number of people.
        min_center: peaks below it are no people; a person's score is never above its centre's.

    Returns:
        keypoints (P, 17, 3): x, y in pixels of the network's input, score in [0, 1];
        boxes_xyxy (P, 4) in the same pixels, inside the input; scores (P,) in [0, 1], falling
        with the centre's score.
    """
    center = sigmoid(heads["center"][0])
    h, w = center.shape
    peaks, rows, columns = _peaks(center, max_people, min_center)
    P = len(peaks)
    if P == 0:
        return np.zeros((0, 17, 3), np.float32), np.zeros((0, 4), np.float32), peaks

    # boxes, in cells: (P, 2) with y before x
    cells = np.stack([rows, columns], axis=1).astype(np.float32)
    middle = cells + heads["box_offset"][:, rows, columns].T
    half = np.maximum(heads["box_scale"][:, rows, columns].T, 0) / 2
    top_left = np.clip(middle - half, 0, (h, w))
    bottom_right = np.clip(middle + half, 0, (h, w))

    # where the centre's cell expects each keypoint, in cells
    expected = heads["regress"][:, rows, columns].T.reshape(P, 17, 2) + cells[:, None]

    # heat x Gaussian around the expected place x inside the box; the Gaussian is separable
    spread = SPREAD * min(h, w)
    along_y = _window(h, expected[..., 0], top_left[:, 0], bottom_right[:, 0], spread)
    along_x = _window(w, expected[..., 1], top_left[:, 1], bottom_right[:, 1], spread)
    weighted = sigmoid(heads["heatmap"]) * along_y[..., None] * along_x[..., None, :]
    best = weighted.reshape(P, 17, h * w).argmax(axis=2)  # (P, 17)
    y, x = best // w, best % w

    joint = np.arange(17)
    offset = heads["offset"].reshape(17, 2, h, w)[joint, :, y, x]  # (P, 17, 2)
    keypoint_scores = weighted.max(axis=0)[joint, y, x]  # (P, 17)

    keypoints = np.stack([x + offset[..., 1], y + offset[..., 0]], axis=2) * CELL
    keypoints = np.concatenate([keypoints, keypoint_scores[..., None]], axis=2)
    boxes = np.concatenate([top_left[:, ::-1], bottom_right[:, ::-1]], axis=1) * CELL

    counted = keypoint_scores > COUNTED_KEYPOINT
    mean_score = (keypoint_scores * counted).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    scores = peaks * mean_score
    return keypoints.astype(np.float32), boxes.astype(np.float32), scores.astype(np.float32)


def _peaks(
    center: Array, max_people: int, min_center: float
) -> tuple[Array, NDArray[np.intp], NDArray[np.intp]]:
    """Return score, row and column of the local maxima, highest first."""
    reach = PEAK_WINDOW // 2
    padded = np.pad(center, reach, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, PEAK_WINDOW, axis=0).max(axis=-1)
    highest = np.lib.stride_tricks.sliding_window_view(windows, PEAK_WINDOW, axis=1).max(axis=-1)
    score = np.where(center >= highest, center, 0).reshape(-1)

    # the graph fills up with scores of 0, lowest index first
    order = np.argsort(-score, kind="stable")[:max_people]
    order = order[score[order] >= min_center]
    rows, columns = np.divmod(order, center.shape[1])
    return score[order].astype(np.float32), rows, columns


def _window(length: int, expected: Array, start: Array, stop: Array, spread: float) -> Array:
    """Return exp(-(cell - expected)^2 / spread), 0 outside [start, stop): (P, 17, length)."""
    cell = np.arange(length, dtype=np.float32)
    gaussian = np.exp(-((cell - expected[..., None]) ** 2) / spread)
    inside = (cell >= start[:, None]) & (cell < stop[:, None])  # (P, length)
    return gaussian * inside[:, None]
