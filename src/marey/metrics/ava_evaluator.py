"""AVA's score of boxes that are collected image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from marey.datasets.ava_format import BoxRows
from marey.metrics.ava import evaluate


class AvaEvaluator:
    """Collect boxes image by image during training and score them at the end; `main` names the
    leading number."""

    main = "map"

    def __init__(self, class_names: Sequence[str], *, behaviour: str = "official") -> None:
        self.label_map = {i + 1: name for i, name in enumerate(class_names)}
        self.behaviour = behaviour
        self._keys: list[tuple[str, float]] = []
        self._truth: list[np.ndarray] = []
        self._detections: list[np.ndarray] = []
        self._located: list[np.ndarray] = []
        self._person_scores: list[np.ndarray] = []

    def add_image(
        self,
        truth_boxes: np.ndarray,
        truth_labels: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
        person_scores: np.ndarray | None = None,
    ) -> None:
        """Add one image.

        Args:
            truth_boxes: (M, 4) xyxy in [0, 1]; truth_labels: (M, K) of 0 and 1.
            boxes: (N, 4) xyxy in [0, 1], or (N, K, 4) with one box per class; scores: (N, K), one
                per class.
            person_scores: (N,), how sure the detector is that a person is there, whatever they do;
                for all images or none.
        """
        image = len(self._keys)
        self._keys.append((f"image{image}", 0.0))
        person, label = np.nonzero(np.asarray(truth_labels))
        self._truth.append(
            np.column_stack(
                [
                    np.full(len(person), image),
                    label + 1,
                    np.ones(len(person)),
                    np.asarray(truth_boxes, np.float64).reshape(-1, 4)[person],
                ]
            )
        )
        num_classes = len(self.label_map)
        boxes, scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
        scores = scores.reshape(-1, num_classes)

        # One row per person: with class-specific boxes that of the best class, as the other K - 1
        # boxes of the same person are no false alarms.
        best = scores.argmax(axis=1)
        one_box = boxes[np.arange(len(best)), best] if boxes.ndim == 3 else boxes.reshape(-1, 4)
        persons = np.full(len(best), image), np.ones(len(best)), scores.max(axis=1)
        self._located.append(np.column_stack([*persons, one_box]))
        boxes = (
            boxes.reshape(-1, 4)
            if boxes.ndim == 3
            else np.repeat(boxes.reshape(-1, 4), num_classes, axis=0)
        )
        rows = np.column_stack(
            [
                np.full(len(boxes), image),
                np.tile(np.arange(1, num_classes + 1), len(boxes) // num_classes),
                scores.reshape(-1),
                boxes,
            ]
        )
        self._detections.append(rows)
        if person_scores is not None:
            self._person_scores.append(np.asarray(person_scores, np.float64))

    def rows(self) -> tuple[BoxRows, BoxRows]:
        """Return ground truth and detections as rows."""
        truth = self._as_rows("<truth>", self._truth)
        return truth, self._as_rows("<detections>", self._detections)

    def _as_rows(self, path: str, parts: Sequence[np.ndarray]) -> BoxRows:
        table = np.concatenate(parts) if parts else np.zeros((0, 7))
        return BoxRows(
            path=path,
            keys=tuple(self._keys),
            image=table[:, 0].astype(np.int64),
            class_ids=table[:, 1].astype(np.int64),
            last=table[:, 2],
            boxes_xyxy_norm=table[:, 3:],
            lines=np.arange(1, len(table) + 1),
        )

    def compute(self) -> dict[str, float]:
        """Return "map" at IoU 0.5, and how well persons are found, all classes merged, at IoU 0.5
        and 0.75.

        "localisation_50" and "_75" rank a box by its best class, as Table 2 of Girdhar et al. does;
        where `add_image` was given person scores, "persons_50" and "_75" rank it by those.
        """
        truth, detections = self.rows()
        scores = {
            "map": evaluate(truth, detections, self.label_map, behaviour=self.behaviour)["mAP"]
        }
        located = self._as_rows("<detections>", self._located)
        ranked = {"localisation": located}
        if self._person_scores:
            ranked["persons"] = replace(located, last=np.concatenate(self._person_scores))
        for name, rows in ranked.items():
            for threshold in (0.5, 0.75):
                scores[f"{name}_{100 * threshold:.0f}"] = evaluate(
                    truth,
                    rows,
                    self.label_map,
                    iou_threshold=threshold,
                    behaviour=self.behaviour,
                    merge_classes=True,
                )["mAP"]
        return scores
