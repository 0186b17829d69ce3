"""AVA's score by class, by size of person and by number of persons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from marey.datasets.ava_format import BoxRows
from marey.metrics.ava import evaluate


def breakdown(
    truth: BoxRows,
    detections: BoxRows,
    label_map: Mapping[int, str],
    *,
    training_counts: Mapping[int, int] | None = None,
    num_bins: int = 4,
    iou_threshold: float = 0.5,
) -> dict[str, list[dict[str, Any]]]:
    """Break the score down by class, by size of person and by number of persons (Girdhar et al.,
    CVPR 2019, Fig. 5).

    Args:
        truth, detections, label_map: as in `evaluate`.
        training_counts: id -> training rows; classes come sorted by it, scarcest first.
        num_bins: size bins of equal population: the thresholds are quantiles of the ground truth
            boxes' area, and each bin keeps truth and detections within its limits.
        iou_threshold: least overlap of a hit.

    Returns:
        "class": {label, training_rows, ap}; "size": {from, to, boxes, mAP}; "persons": {persons,
            images, mAP}.
    """
    whole = evaluate(truth, detections, label_map, iou_threshold=iou_threshold)["per_class"]
    counts = training_counts or {}
    by_class = [
        {"label": name, "training_rows": counts.get(number, 0), "ap": whole[name]}
        for number, name in sorted(label_map.items(), key=lambda item: counts.get(item[0], 0))
    ]

    persons = np.unique(np.column_stack([truth.image, truth.boxes_xyxy_norm]), axis=0)
    limits = (
        np.quantile(_area(persons[:, 1:]), np.linspace(0, 1, num_bins + 1))
        if len(persons)
        else np.zeros(2)
    )
    by_size: list[dict[str, Any]] = []
    for low, high, is_last in zip(
        limits[:-1], limits[1:], np.arange(1, len(limits)) == len(limits) - 1, strict=True
    ):
        top = np.inf if is_last else high
        floor = low if by_size else 0.0
        inside = [
            rows.select(
                (_area(rows.boxes_xyxy_norm) >= floor) & (_area(rows.boxes_xyxy_norm) < top)
            )
            for rows in (truth, detections)
        ]
        score = evaluate(inside[0], inside[1], label_map, iou_threshold=iou_threshold)["mAP"]
        area = _area(persons[:, 1:])
        by_size.append(
            {
                "from": float(low),
                "to": float(high),
                "mAP": score,
                "boxes": int(((area >= floor) & (area < top)).sum()),
            }
        )

    counted = np.bincount(persons[:, 0].astype(np.int64), minlength=len(truth.keys))
    by_persons = []
    for number in sorted(set(counted[counted > 0].tolist())):
        images = {truth.keys[i] for i in np.flatnonzero(counted == number)}
        inside = [
            rows.select(np.array([rows.keys[i] in images for i in rows.image], bool))
            for rows in (truth, detections)
        ]
        score = evaluate(inside[0], inside[1], label_map, iou_threshold=iou_threshold)["mAP"]
        by_persons.append({"persons": number, "images": len(images), "mAP": score})
    return {"class": by_class, "size": by_size, "persons": by_persons}


def _area(boxes_xyxy: np.ndarray) -> np.ndarray:
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
