"""Frame mean average precision of AVA, equal to the official evaluator, without its loops over images and classes.

Two evaluators are in use and differ: ActivityNet's `get_ava_performance.py` ("official", the default) and the helper
that SlowFast, TimeSformer and DirecFormer carry ("slowfast"). `EvaluatorRules` lists where.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from marey.datasets.ava_format import AVA_60_CLASSES, BoxRows, read_box_rows, read_label_map, read_timestamps
from marey.errors import UserError, unknown_name


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
    """Tell images apart by whole seconds only (officially by microseconds, to which no file's digits reach)."""


RULES = {
    "official": EvaluatorRules(detections_per_image=50, sort_within_image=True, ignore_unlabelled_images=True,
                               whole_seconds=False),
    "slowfast": EvaluatorRules(detections_per_image=None, sort_within_image=False, ignore_unlabelled_images=False,
                               whole_seconds=True),
}


def evaluate_csv(truth_csv: str | Path, detections_csv: str | Path, iou_threshold: float = 0.5,
                 label_map: str | Path | Mapping[int, str] | None = None, *,
                 behaviour: Literal["official", "slowfast"] = "official",
                 excluded_csv: str | Path | None = None, merge_classes: bool = False) -> dict[str, Any]:
    """Score a file of detections against a file of ground truth.

    Args:
        truth_csv, detections_csv: rows `video_id,seconds,x1,y1,x2,y2,action_id,person_id or score`.
        iou_threshold: least overlap of a hit, in (0, 1].
        label_map: id -> name, or a .pbtxt file; None means the official 60 classes. Rows of other ids are dropped.
        behaviour: whose rules, "official" (ActivityNet) or "slowfast".
        excluded_csv: `video_id,seconds` rows left out of truth and detections.
        merge_classes: score persons only: a box counts once, with the greatest of its class scores (Table 2 of
            Girdhar et al., "Video Action Transformer Network", CVPR 2019).

    Returns:
        "mAP": mean over classes with ground truth; "per_class": name -> average precision, NaN without ground truth;
        "num_truth", "num_detections": rows that counted; "invalid_detections": rows without area, dropped.

    Raises:
        UserError: if a file is malformed (naming the line) or a ground truth box has no area.
    """
    if label_map is None:
        label_map = AVA_60_CLASSES
    elif not isinstance(label_map, Mapping):
        label_map = read_label_map(label_map)
    excluded = read_timestamps(excluded_csv) if excluded_csv is not None else set()
    return evaluate(read_box_rows(truth_csv), read_box_rows(detections_csv), label_map, iou_threshold=iou_threshold,
                    behaviour=behaviour, excluded=excluded, merge_classes=merge_classes)


def evaluate(truth: BoxRows, detections: BoxRows, label_map: Mapping[int, str], *, iou_threshold: float = 0.5,
             behaviour: str = "official", excluded: set[tuple[str, float]] | None = None,
             merge_classes: bool = False) -> dict[str, Any]:
    """Score rows against rows; `evaluate_csv` says what the arguments and the answer are."""
    if behaviour not in RULES:
        raise unknown_name("AVA evaluator", behaviour, RULES)
    if not 0 < iou_threshold <= 1:
        raise UserError(f"iou_threshold must be in (0, 1], got {iou_threshold}")
    rules, listed = RULES[behaviour], np.array(sorted(label_map), np.int64)
    keys: dict[tuple[str, float], int] = {}
    truth_table = np.array([keys.setdefault(_key(key, rules), len(keys)) for key in truth.keys], np.int64)
    labelled_images = len(keys)
    table = np.array([keys.setdefault(_key(key, rules), len(keys)) for key in detections.keys], np.int64)
    left_out = np.zeros(len(keys), bool)
    left_out[[keys[key] for key in (_key(e, rules) for e in excluded or ()) if key in keys]] = True
    truth, truth_image = _kept(truth, truth_table, listed, left_out)
    detections, image = _kept(detections, table, listed, left_out)
    if merge_classes:
        truth, truth_image = _merged(truth, truth_image)
        detections, image = _merged(detections, image)
        label_map, listed = {1: "person"}, np.array([1])
    order = _reading_order(detections, image, rules)
    if rules.ignore_unlabelled_images:
        order = order[image[order] < labelled_images]
    valid = _has_area(detections.boxes_xyxy_norm[order])
    invalid, order = int((~valid).sum()), order[valid]
    _refuse_inverted(truth, truth_image, image[order])

    detections, image = detections.select(order), image[order]
    hit = match_detections(truth.boxes_xyxy_norm, truth_image * (listed[-1] + 1) + truth.class_ids,
                           detections.boxes_xyxy_norm, image * (listed[-1] + 1) + detections.class_ids, iou_threshold)
    by_class = np.argsort(detections.class_ids, kind="stable")
    bounds = np.searchsorted(detections.class_ids[by_class], np.stack([listed, listed + 1]))
    scores, hit = detections.last[by_class], hit[by_class]
    num_truth = np.bincount(truth.class_ids, minlength=listed[-1] + 1)
    per_class = {label_map[c]: average_precision(scores[low:high], hit[low:high], int(num_truth[c]))
                 for c, low, high in zip(listed.tolist(), *bounds.tolist(), strict=True)}
    values = np.array(list(per_class.values()))
    return {"mAP": float(np.nanmean(values)) if np.isfinite(values).any() else float("nan"), "per_class": per_class,
            "num_truth": len(truth), "num_detections": len(detections), "invalid_detections": invalid}


def _key(key: tuple[str, float], rules: EvaluatorRules) -> tuple[str, float]:
    return (key[0], float(int(key[1]))) if rules.whole_seconds else key


def _kept(rows: BoxRows, table: np.ndarray, listed: np.ndarray, left_out: np.ndarray) -> tuple[BoxRows, np.ndarray]:
    """Drop other classes and left out images; `table` turns the file's image numbers into common ones."""
    image = table[rows.image]
    keep = np.isin(rows.class_ids, listed) & ~left_out[image]
    return (rows, image) if keep.all() else (rows.select(keep), image[keep])


def _merged(rows: BoxRows, image: np.ndarray) -> tuple[BoxRows, np.ndarray]:
    """One row per (image, box) with the greatest score, at the place of the box's first row."""
    if not len(rows):
        return rows, image
    table = np.column_stack([image, rows.boxes_xyxy_norm])
    _, first, group = np.unique(table, axis=0, return_index=True, return_inverse=True)
    best = np.full(len(first), -np.inf)
    np.maximum.at(best, group.reshape(-1), rows.last)
    order = np.argsort(first)
    merged = rows.select(first[order])
    return BoxRows(path=rows.path, keys=rows.keys, image=merged.image, boxes_xyxy_norm=merged.boxes_xyxy_norm,
                   class_ids=np.ones(len(first), np.int64), last=best[order], lines=merged.lines), image[first[order]]


def _reading_order(rows: BoxRows, image: np.ndarray, rules: EvaluatorRules) -> np.ndarray:
    """Rows in the order the evaluator takes them: images by first appearance, then within the image."""
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
    for i in np.unique(image_of[tied]):                                  # equal scores: as the official heap has it
        stop = starts[i + 1] if i + 1 < len(starts) else len(order)
        kept = _heap_order(rows, np.sort(order[starts[i]:stop]), limit)
        order[starts[i]:starts[i] + len(kept)] = kept
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
        raise UserError(f"{truth.path}:{truth.lines[bad[0]]}: ground truth box ({box}) has no area; "
                        "expected x1 < x2 and y1 < y2")


def match_detections(truth_boxes: np.ndarray, truth_group: np.ndarray, boxes: np.ndarray, group: np.ndarray,
                     iou_threshold: float) -> np.ndarray:
    """Say which detections are hits, all groups at once (reference: PASCAL VOC matching without a second choice).

    A detection is compared with the box of greatest overlap in its group, taken or not (the first on ties). It is a
    hit if that overlap reaches the threshold and no earlier detection took the box.

    Args:
        truth_boxes: float64, (M, 4), xyxy; truth_group: int64, (M,), one number per (image, class).
        boxes: float64, (N, 4), in the order they are matched; group: int64, (N,).
        iou_threshold: in (0, 1].

    Returns:
        bool, (N,).
    """
    by_group = np.argsort(truth_group, kind="stable")
    sorted_group = truth_group[by_group]
    low, high = np.searchsorted(sorted_group, group, "left"), np.searchsorted(sorted_group, group, "right")
    count = high - low
    hit = np.zeros(len(boxes), bool)
    some = np.flatnonzero(count)
    if not len(some):
        return hit
    starts = np.r_[0, np.cumsum(count[some])[:-1]]                       # first pair of each detection
    detection = np.repeat(some, count[some])
    place = np.arange(len(detection)) - np.repeat(starts, count[some])   # 0, 1, .. among the group's boxes
    candidate = by_group[low[detection] + place]
    overlap = _pair_iou(boxes[detection], truth_boxes[candidate])
    best = np.maximum.reduceat(overlap, starts)
    is_best = overlap == np.repeat(best, count[some])
    first_best = np.minimum.reduceat(np.where(is_best, np.arange(len(detection)), len(detection)), starts)
    reaches = best >= iou_threshold
    _, first = np.unique(candidate[first_best[reaches]], return_index=True)
    hit[some[reaches][first]] = True
    return hit


def _pair_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = np.maximum(0.0, np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]))
    height = np.maximum(0.0, np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]))
    inter = height * width
    area_a, area_b = (a[:, 3] - a[:, 1]) * (a[:, 2] - a[:, 0]), (b[:, 3] - b[:, 1]) * (b[:, 2] - b[:, 0])
    return inter / (area_a + area_b - inter)


def average_precision(scores: np.ndarray, hits: np.ndarray, num_truth: int) -> float:
    """Area under the precision envelope over recall, at every point (PASCAL VOC 2010 and later).

    Args:
        scores: float, (N,); hits: bool, (N,), same order (equal scores end in NumPy's `argsort` order, reversed).
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


def breakdown(truth: BoxRows, detections: BoxRows, label_map: Mapping[int, str], *,
              training_counts: Mapping[int, int] | None = None, num_bins: int = 4,
              iou_threshold: float = 0.5) -> dict[str, list[dict[str, Any]]]:
    """Break the score down by class, by size of person and by number of persons (Girdhar et al., CVPR 2019, Fig. 5).

    Args:
        truth, detections, label_map: as in `evaluate`.
        training_counts: id -> training rows; classes come sorted by it, scarcest first.
        num_bins: size bins of equal population: the thresholds are quantiles of the ground truth boxes' area, and
            each bin keeps truth and detections within its limits.
        iou_threshold: least overlap of a hit.

    Returns:
        "class": {label, training_rows, ap}; "size": {from, to, boxes, mAP}; "persons": {persons, images, mAP}.
    """
    whole = evaluate(truth, detections, label_map, iou_threshold=iou_threshold)["per_class"]
    counts = training_counts or {}
    by_class = [{"label": name, "training_rows": counts.get(number, 0), "ap": whole[name]}
                for number, name in sorted(label_map.items(), key=lambda item: counts.get(item[0], 0))]

    persons = np.unique(np.column_stack([truth.image, truth.boxes_xyxy_norm]), axis=0)
    limits = np.quantile(_area(persons[:, 1:]), np.linspace(0, 1, num_bins + 1)) if len(persons) else np.zeros(2)
    by_size: list[dict[str, Any]] = []
    for low, high, is_last in zip(limits[:-1], limits[1:], np.arange(1, len(limits)) == len(limits) - 1, strict=True):
        top = np.inf if is_last else high
        floor = low if by_size else 0.0
        inside = [rows.select((_area(rows.boxes_xyxy_norm) >= floor) & (_area(rows.boxes_xyxy_norm) < top))
                  for rows in (truth, detections)]
        score = evaluate(inside[0], inside[1], label_map, iou_threshold=iou_threshold)["mAP"]
        area = _area(persons[:, 1:])
        by_size.append({"from": float(low), "to": float(high), "mAP": score,
                        "boxes": int(((area >= floor) & (area < top)).sum())})

    counted = np.bincount(persons[:, 0].astype(np.int64), minlength=len(truth.keys))
    by_persons = []
    for number in sorted(set(counted[counted > 0].tolist())):
        images = {truth.keys[i] for i in np.flatnonzero(counted == number)}
        inside = [rows.select(np.array([rows.keys[i] in images for i in rows.image], bool))
                  for rows in (truth, detections)]
        score = evaluate(inside[0], inside[1], label_map, iou_threshold=iou_threshold)["mAP"]
        by_persons.append({"persons": number, "images": len(images), "mAP": score})
    return {"class": by_class, "size": by_size, "persons": by_persons}


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


class AvaEvaluator:
    """Collect boxes image by image during training and score them at the end; `main` names the leading number."""

    main = "map"

    def __init__(self, class_names: Sequence[str], *, behaviour: str = "official") -> None:
        self.label_map = {i + 1: name for i, name in enumerate(class_names)}
        self.behaviour = behaviour
        self._keys: list[tuple[str, float]] = []
        self._truth: list[np.ndarray] = []
        self._detections: list[np.ndarray] = []
        self._person_scores: list[np.ndarray] = []

    def add_image(self, truth_boxes: np.ndarray, truth_labels: np.ndarray, boxes: np.ndarray,
                  scores: np.ndarray, person_scores: np.ndarray | None = None) -> None:
        """Add one image.

        Args:
            truth_boxes: (M, 4) xyxy in [0, 1]; truth_labels: (M, K) of 0 and 1.
            boxes: (N, 4) xyxy in [0, 1], or (N, K, 4) with one box per class; scores: (N, K), one per class.
            person_scores: (N,), how sure the detector is that a person is there, whatever they do; for all images or
                none.
        """
        image = len(self._keys)
        self._keys.append((f"image{image}", 0.0))
        person, label = np.nonzero(np.asarray(truth_labels))
        self._truth.append(np.column_stack([np.full(len(person), image), label + 1, np.ones(len(person)),
                                            np.asarray(truth_boxes, np.float64).reshape(-1, 4)[person]]))
        num_classes = len(self.label_map)
        boxes = np.asarray(boxes, np.float64)
        boxes = boxes.reshape(-1, 4) if boxes.ndim == 3 else np.repeat(boxes.reshape(-1, 4), num_classes, axis=0)
        rows = np.column_stack([np.full(len(boxes), image),
                                np.tile(np.arange(1, num_classes + 1), len(boxes) // num_classes),
                                np.asarray(scores, np.float64).reshape(-1), boxes])
        self._detections.append(rows)
        if person_scores is not None:
            self._person_scores.append(np.repeat(np.asarray(person_scores, np.float64), num_classes))

    def rows(self) -> tuple[BoxRows, BoxRows]:
        """Return ground truth and detections as rows."""
        tables = [np.concatenate(parts) if parts else np.zeros((0, 7)) for parts in (self._truth, self._detections)]
        truth, detections = (BoxRows(path=path, keys=tuple(self._keys), image=table[:, 0].astype(np.int64),
                                     class_ids=table[:, 1].astype(np.int64), last=table[:, 2],
                                     boxes_xyxy_norm=table[:, 3:], lines=np.arange(1, len(table) + 1))
                             for path, table in zip(("<truth>", "<detections>"), tables, strict=True))
        return truth, detections

    def compute(self) -> dict[str, float]:
        """Return "map" at IoU 0.5, and how well persons are found, all classes merged, at IoU 0.5 and 0.75.

        "localisation_50" and "_75" rank a box by its best class, as Table 2 of Girdhar et al. does; where `add_image`
        was given person scores, "persons_50" and "_75" rank it by those.
        """
        truth, detections = self.rows()
        scores = {"map": evaluate(truth, detections, self.label_map, behaviour=self.behaviour)["mAP"]}
        ranked = {"localisation": detections}
        if self._person_scores:
            ranked["persons"] = replace(detections, last=np.concatenate(self._person_scores))
        for name, rows in ranked.items():
            for threshold in (0.5, 0.75):
                scores[f"{name}_{100 * threshold:.0f}"] = evaluate(
                    truth, rows, self.label_map, iou_threshold=threshold, behaviour=self.behaviour,
                    merge_classes=True)["mAP"]
        return scores
