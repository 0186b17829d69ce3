"""Frame mean average precision of AVA, equal to the official evaluator, without its loops over
images and classes.

Two evaluators are in use and differ: ActivityNet's `get_ava_performance.py` ("official", the
default) and the helper that SlowFast, TimeSformer and DirecFormer carry ("slowfast").
`EvaluatorRules` lists where.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from marey.datasets.ava_format import (
    AVA_60_CLASSES,
    BoxRows,
    read_box_rows,
    read_label_map,
    read_timestamps,
)
from marey.errors import UserError, unknown_name
from marey.metrics.average_precision import average_precision, match_detections


@dataclass(frozen=True, kw_only=True)
class EvaluatorRules:
    """Where the two published evaluators differ."""

    detections_per_image: int | None
    """Only this many best detections of an image count, over all classes; None for no limit."""
    sort_within_image: bool
    """Match an image's detections from the best score down; otherwise in the order of the file."""
    ignore_unlabelled_images: bool
    """Ignore detections on images the truth file does not name; otherwise each is a false alarm."""
    whole_seconds: bool
    """Tell images apart by whole seconds only (officially by microseconds, to which no file's
    digits reach)."""


RULES = {
    "official": EvaluatorRules(
        detections_per_image=50,
        sort_within_image=True,
        ignore_unlabelled_images=True,
        whole_seconds=False,
    ),
    "slowfast": EvaluatorRules(
        detections_per_image=None,
        sort_within_image=False,
        ignore_unlabelled_images=False,
        whole_seconds=True,
    ),
}


def evaluate_csv(
    truth_csv: str | Path,
    detections_csv: str | Path,
    iou_threshold: float = 0.5,
    label_map: str | Path | Mapping[int, str] | None = None,
    *,
    behaviour: Literal["official", "slowfast"] = "official",
    excluded_csv: str | Path | None = None,
    merge_classes: bool = False,
) -> dict[str, Any]:
    """Score a file of detections against a file of ground truth.

    Args:
        truth_csv, detections_csv: rows `video_id,seconds,x1,y1,x2,y2,action_id,person_id or score`.
        iou_threshold: least overlap of a hit, in (0, 1].
        label_map: id -> name, or a .pbtxt file; None means the official 60 classes. Rows of other
            ids are dropped.
        behaviour: which rules, "official" (ActivityNet) or "slowfast".
        excluded_csv: `video_id,seconds` rows left out of truth and detections.
        merge_classes: score persons only: a box counts once, with the greatest of its class scores
            (Table 2 of Girdhar et al., "Video Action Transformer Network", CVPR 2019).

    Returns:
        "mAP": mean over classes with ground truth; "per_class": name -> average precision, NaN
            without ground truth;
        "num_truth", "num_detections": rows that counted; "invalid_detections": rows without area,
            dropped.

    Raises:
        UserError: if a file is malformed (naming the line) or a ground truth box has no area.
    """
    if label_map is None:
        label_map = AVA_60_CLASSES
    elif not isinstance(label_map, Mapping):
        label_map = read_label_map(label_map)
    excluded = read_timestamps(excluded_csv) if excluded_csv is not None else set()
    return evaluate(
        read_box_rows(truth_csv),
        read_box_rows(detections_csv),
        label_map,
        iou_threshold=iou_threshold,
        behaviour=behaviour,
        excluded=excluded,
        merge_classes=merge_classes,
    )


def evaluate(
    truth: BoxRows,
    detections: BoxRows,
    label_map: Mapping[int, str],
    *,
    iou_threshold: float = 0.5,
    behaviour: str = "official",
    excluded: set[tuple[str, float]] | None = None,
    merge_classes: bool = False,
) -> dict[str, Any]:
    """Score rows against rows; arguments and result as in `evaluate_csv`."""
    matched = match(
        truth,
        detections,
        label_map,
        iou_threshold=iou_threshold,
        behaviour=behaviour,
        excluded=excluded,
        merge_classes=merge_classes,
    )
    if merge_classes:
        label_map = {1: "person"}
    listed = np.array(sorted(label_map), np.int64)

    # Rank each class by score.
    by_class = np.argsort(matched.class_ids, kind="stable")
    bounds = np.searchsorted(matched.class_ids[by_class], np.stack([listed, listed + 1]))
    scores, hit = matched.scores[by_class], matched.hit[by_class]
    num_truth = np.bincount(matched.truth_class_ids, minlength=listed[-1] + 1)
    per_class = {
        label_map[c]: average_precision(scores[low:high], hit[low:high], int(num_truth[c]))
        for c, low, high in zip(listed.tolist(), *bounds.tolist(), strict=True)
    }
    values = np.array(list(per_class.values()))
    return {
        "mAP": float(np.nanmean(values)) if np.isfinite(values).any() else float("nan"),
        "per_class": per_class,
        "num_truth": len(matched.truth_class_ids),
        "num_detections": len(matched.scores),
        "invalid_detections": matched.invalid,
    }


@dataclass(frozen=True, kw_only=True)
class Matched:
    """The detections that count, N, each with its image and whether it is a hit."""

    scores: np.ndarray
    class_ids: np.ndarray
    image: np.ndarray
    """int64, (N,), numbered with those of the truth, which come first."""
    hit: np.ndarray
    """bool, (N,)."""
    truth_class_ids: np.ndarray
    """int64, (M,); truth_image: int64, (M,)."""
    truth_image: np.ndarray
    num_images: int
    """Images the truth names."""
    invalid: int
    """Detections without area, dropped."""


def match(
    truth: BoxRows,
    detections: BoxRows,
    label_map: Mapping[int, str],
    *,
    iou_threshold: float = 0.5,
    behaviour: str = "official",
    excluded: set[tuple[str, float]] | None = None,
    merge_classes: bool = False,
) -> Matched:
    """Match detections to truth within each image and class; arguments as in `evaluate`."""
    if behaviour not in RULES:
        raise unknown_name("AVA evaluator", behaviour, RULES)
    if not 0 < iou_threshold <= 1:
        raise UserError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    rules, listed = RULES[behaviour], np.array(sorted(label_map), np.int64)

    # Images of both files get common numbers, those of the truth first.
    keys: dict[tuple[str, float], int] = {}
    truth_table = np.array(
        [keys.setdefault(_key(key, rules), len(keys)) for key in truth.keys], np.int64
    )
    labelled_images = len(keys)
    table = np.array(
        [keys.setdefault(_key(key, rules), len(keys)) for key in detections.keys], np.int64
    )
    left_out = np.zeros(len(keys), bool)
    left_out[[keys[key] for key in (_key(e, rules) for e in excluded or ()) if key in keys]] = True
    truth, truth_image = _kept(truth, truth_table, listed, left_out)
    detections, image = _kept(detections, table, listed, left_out)

    if merge_classes:
        truth, truth_image = _merged(truth, truth_image)
        detections, image = _merged(detections, image)
        listed = np.array([1])

    # Detections in the order the evaluator reads them, without those it ignores.
    order = _reading_order(detections, image, rules)
    if rules.ignore_unlabelled_images:
        order = order[image[order] < labelled_images]
    valid = _has_area(detections.boxes_xyxy_norm[order])
    invalid, order = int((~valid).sum()), order[valid]
    _refuse_inverted(truth, truth_image, image[order])

    # Match within each pair of image and class.
    detections, image = detections.select(order), image[order]
    hit = match_detections(
        truth.boxes_xyxy_norm,
        truth_image * (listed[-1] + 1) + truth.class_ids,
        detections.boxes_xyxy_norm,
        image * (listed[-1] + 1) + detections.class_ids,
        iou_threshold,
    )
    return Matched(
        scores=detections.last,
        class_ids=detections.class_ids,
        image=image,
        hit=hit,
        truth_class_ids=truth.class_ids,
        truth_image=truth_image,
        num_images=labelled_images,
        invalid=invalid,
    )


def _key(key: tuple[str, float], rules: EvaluatorRules) -> tuple[str, float]:
    return (key[0], float(int(key[1]))) if rules.whole_seconds else key


def _kept(
    rows: BoxRows, table: np.ndarray, listed: np.ndarray, left_out: np.ndarray
) -> tuple[BoxRows, np.ndarray]:
    """Drop other classes and left out images; `table` turns the file's image numbers into common
    ones."""
    image = table[rows.image]
    keep = np.isin(rows.class_ids, listed) & ~left_out[image]
    return (rows, image) if keep.all() else (rows.select(keep), image[keep])


def _merged(rows: BoxRows, image: np.ndarray) -> tuple[BoxRows, np.ndarray]:
    """One row per (image, box) with the greatest score, in the order of the boxes' first rows."""
    if not len(rows):
        return rows, image
    table = np.column_stack([image, rows.boxes_xyxy_norm])
    _, first, group = np.unique(table, axis=0, return_index=True, return_inverse=True)
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, group.reshape(-1), rows.last)
    order = np.argsort(first)
    merged = rows.select(first[order])
    return BoxRows(
        path=rows.path,
        keys=rows.keys,
        image=merged.image,
        boxes_xyxy_norm=merged.boxes_xyxy_norm,
        class_ids=np.ones(len(first), np.int64),
        last=best[order],
        lines=merged.lines,
    ), image[first[order]]


def _reading_order(rows: BoxRows, image: np.ndarray, rules: EvaluatorRules) -> np.ndarray:
    """Rows in the order the evaluator takes them: images by first appearance, then within the
    image."""
    if not len(rows):
        return np.zeros(0, np.int64)
    _, first, group = np.unique(image, return_index=True, return_inverse=True)
    appearance = first[group.reshape(-1)]
    if not rules.sort_within_image:
        return np.argsort(appearance, kind="stable")
    order = np.lexsort((-rows.last, appearance))
    is_start = np.r_[True, np.diff(appearance[order]) > 0]
    starts = np.flatnonzero(is_start)
    image_of = np.cumsum(is_start) - 1
    limit = rules.detections_per_image or len(order)
    tied = np.r_[False, np.diff(rows.last[order]) == 0] & ~is_start
    for i in np.unique(image_of[tied]):  # equal scores: as the official heap has it
        stop = starts[i + 1] if i + 1 < len(starts) else len(order)
        kept = _heap_order(rows, np.sort(order[starts[i] : stop]), limit)
        order[starts[i] : starts[i] + len(kept)] = kept
    return order[np.arange(len(order)) - starts[image_of] < limit]


def _heap_order(rows: BoxRows, members: np.ndarray, limit: int) -> np.ndarray:
    """One image's rows as the official reader keeps them: its heap decides between equal scores."""
    heap: list[tuple[float, ...]] = []
    for i in members.tolist():
        x1, y1, x2, y2 = rows.boxes_xyxy_norm[i].tolist()
        entry = (float(rows.last[i]), int(rows.class_ids[i]), y1, x1, y2, x2, i)
        if len(heap) < limit:
            heapq.heappush(heap, entry)
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, entry)
    return np.array([entry[-1] for entry in sorted(heap, key=lambda entry: -entry[0])], np.int64)


def _has_area(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[:, 0] < boxes_xyxy[:, 2]) & (boxes_xyxy[:, 1] < boxes_xyxy[:, 3])


def _refuse_inverted(truth: BoxRows, truth_image: np.ndarray, image: np.ndarray) -> None:
    bad = np.flatnonzero(~_has_area(truth.boxes_xyxy_norm) & np.isin(truth_image, image))
    if len(bad):
        box = ", ".join(f"{value:g}" for value in truth.boxes_xyxy_norm[bad[0]])
        raise UserError(
            f"{truth.path}:{truth.lines[bad[0]]}: ground truth box ({box}) has no area; "
            "expected x1 < x2 and y1 < y2"
        )
