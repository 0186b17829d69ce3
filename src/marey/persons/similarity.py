"""How alike two finds of a person are: by box, by keypoints, by the colours of clothes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

KEYPOINT_SPREAD = 2e-3 * np.array(
    [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], np.float32
)
"""Per keypoint twice the standard deviation of COCO's annotators, in square roots of the person's
area (cocodataset.org, keypoint evaluation)."""

COLOUR_LEVELS = 4
"""Levels per colour channel in a histogram of clothes."""

CLOTHES = ((0.15, 0.5), (0.5, 0.85))
"""Upper and lower body, as shares of a box's height from its top."""

CLOTHES_WIDTH = (0.25, 0.75)
"""The middle of a box, as shares of its width: less background."""


def box_area(boxes_xyxy: Array) -> Array:
    """Return areas (P,) of boxes (P, 4)."""
    return np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0).prod(axis=1)


def intersection(first: Array, second: Array) -> Array:
    """Return the shared areas (P, Q) of boxes xyxy (P, 4) and (Q, 4) in the same units."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.maximum(bottom_right - top_left, 0).prod(axis=2)


def box_iou(first: Array, second: Array) -> Array:
    """Return intersection over union (P, Q) of boxes xyxy (P, 4) and (Q, 4) in the same units."""
    shared = intersection(first, second)
    union = box_area(first)[:, None] + box_area(second) - shared
    return shared / np.maximum(union, 1e-12)


def keypoint_similarity(
    first: Array, first_area: Array, second: Array, second_area: Array
) -> Array:
    r"""Compare poses keypoint by keypoint, as COCO's object keypoint similarity does.

        OKS = mean_i exp(-d_i^2 / (2 A k_i^2)),   A the mean area of the two persons

    We differ in one place: keypoints are weighed by the product of their two scores, so that
    guesses count little.

    Args:
        first, second: (P, 17, 3) and (Q, 17, 3): x, y in one unit, and score.
        first_area, second_area: (P,) and (Q,), in that unit squared.

    Returns:
        (P, Q), each value in [0, 1].
    """
    apart = first[:, None, :, :2] - second[None, :, :, :2]
    area = (first_area[:, None] + second_area) / 2
    variance = np.maximum(area, 1e-12)[..., None] * KEYPOINT_SPREAD**2
    agreement = np.exp(-(apart**2).sum(axis=-1) / (2 * variance))  # (P, Q, 17)

    weight = first[:, None, :, 2] * second[None, :, :, 2] + 1e-6
    return (agreement * weight).sum(axis=-1) / weight.sum(axis=-1)


def clothes_colours(frame: NDArray[np.uint8], boxes_xyxy_norm: Array) -> Array:
    """Return one colour histogram of upper and lower body per person.

    Args:
        frame: (3, H, W), RGB.
        boxes_xyxy_norm: (P, 4), in [0, 1].

    Returns:
        (P, 128): 64 colours of the upper half, 64 of the lower, each summing to 1/2.
    """
    H, W = frame.shape[1:]
    bins = COLOUR_LEVELS**3
    histograms = np.zeros((len(boxes_xyxy_norm), len(CLOTHES) * bins), np.float32)
    for person, (x1, y1, x2, y2) in enumerate(boxes_xyxy_norm):
        left, right = (int(W * (x1 + share * (x2 - x1))) for share in CLOTHES_WIDTH)
        for part, shares in enumerate(CLOTHES):
            top, bottom = (int(H * (y1 + share * (y2 - y1))) for share in shares)
            patch = frame[:, top : max(bottom, top + 1), left : max(right, left + 1)]
            levels = (patch // (256 // COLOUR_LEVELS)).reshape(3, -1).astype(np.intp)
            index = (levels[0] * COLOUR_LEVELS + levels[1]) * COLOUR_LEVELS + levels[2]
            counts = np.bincount(index, minlength=bins)
            share = counts / max(counts.sum(), 1) / len(CLOTHES)
            histograms[person, part * bins : (part + 1) * bins] = share
    return histograms


def colour_similarity(first: Array, second: Array) -> Array:
    """Return the intersection (P, Q) of histograms, each value in [0, 1]."""
    return np.minimum(first[:, None], second[None]).sum(axis=-1)
