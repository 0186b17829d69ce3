"""Average precision of boxes: which detections are hits, and the area under precision over
recall."""

from __future__ import annotations

import numpy as np


def match_detections(
    truth_boxes: np.ndarray,
    truth_group: np.ndarray,
    boxes: np.ndarray,
    group: np.ndarray,
    iou_threshold: float,
) -> np.ndarray:
    """Return which detections are hits, all groups at once (PASCAL VOC matching without a second
    choice).

    A detection is compared with the box of greatest overlap in its group, taken or not (the first
    on ties). It is a hit if that overlap reaches the threshold and no earlier detection took the
    box.

    Args:
        truth_boxes: float64, (M, 4), xyxy; truth_group: int64, (M,), one number per (image, class).
        boxes: float64, (N, 4), in the order they are matched; group: int64, (N,).
        iou_threshold: in (0, 1].

    Returns:
        bool, (N,).
    """
    by_group = np.argsort(truth_group, kind="stable")
    sorted_group = truth_group[by_group]
    low, high = (
        np.searchsorted(sorted_group, group, "left"),
        np.searchsorted(sorted_group, group, "right"),
    )
    count = high - low
    hit = np.zeros(len(boxes), bool)
    some = np.flatnonzero(count)
    if not len(some):
        return hit
    starts = np.r_[0, np.cumsum(count[some])[:-1]]  # first pair of each detection
    detection = np.repeat(some, count[some])
    rank = np.arange(len(detection)) - np.repeat(
        starts, count[some]
    )  # 0, 1, .. among the group's boxes
    candidate = by_group[low[detection] + rank]

    # The best box of each detection; of equal overlaps the first.
    overlap = _pair_iou(boxes[detection], truth_boxes[candidate])
    best = np.maximum.reduceat(overlap, starts)
    is_best = overlap == np.repeat(best, count[some])
    first_best = np.minimum.reduceat(
        np.where(is_best, np.arange(len(detection)), len(detection)), starts
    )

    # Of the detections whose best box is the same, only the first is a hit.
    reaches = best >= iou_threshold
    _, first = np.unique(candidate[first_best[reaches]], return_index=True)
    hit[some[reaches][first]] = True
    return hit


def _pair_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = np.maximum(0.0, np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]))
    height = np.maximum(0.0, np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]))
    inter = height * width
    area_a, area_b = (
        (a[:, 3] - a[:, 1]) * (a[:, 2] - a[:, 0]),
        (b[:, 3] - b[:, 1]) * (b[:, 2] - b[:, 0]),
    )
    return inter / (area_a + area_b - inter)


def average_precision(scores: np.ndarray, hits: np.ndarray, num_truth: int) -> float:
    """Area under the precision envelope over recall, at every point (PASCAL VOC 2010 and later).

    Args:
        scores: float, (N,); hits: bool, (N,), same order (equal scores end in NumPy's `argsort`
            order, reversed).
        num_truth: number of boxes to find.

    Returns:
        In [0, 1]; 0 without detections, NaN without anything to find.
    """
    if num_truth == 0:
        return float("nan")
    if not len(scores):
        return 0.0
    ranked = np.asarray(hits, np.float64)[np.argsort(scores)[::-1]]
    found = np.cumsum(ranked)
    precision, recall = found / np.arange(1, len(ranked) + 1), found / num_truth
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(np.r_[0.0, recall])
    return float((steps * envelope).sum())
