"""Link the persons of successive frames into tracks, by place, movement, pose and clothes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from marey.persons.similarity import box_area, box_iou, colour_similarity, keypoint_similarity

Array = NDArray[np.floating]

MAX_GAP_SECONDS = 2.5
"""A person unseen for longer comes back under a new number."""

MIN_IOU = 0.1
"""Boxes that overlap less are compared by the distance of their centres instead."""

MAX_DISTANCE = 1.0
"""Centres further apart than this many heights, and
`NEAR_DISTANCE + HEIGHTS_PER_SECOND` x seconds, are different people."""
NEAR_DISTANCE = 0.5
HEIGHTS_PER_SECOND = 1.5

MAX_RATIO = 2.2
"""Boxes whose longer sides differ by more than this factor are different people."""

POSE_WEIGHT = 0.5
COLOUR_WEIGHT = 0.5
"""What equal keypoints and equal clothes add to the IoU of the boxes."""

VELOCITY_DECAY = 0.5
"""Share of a new measurement in the velocity of a track."""
MAX_PREDICTED_SECONDS = 0.4
"""A track is moved on by its velocity for no longer than this."""
COLOUR_DECAY = 0.2
"""Share of a new measurement in the colours of a track."""


@dataclass(kw_only=True)
class Track:
    """What is remembered of one person."""

    number: int
    box: Array
    """(4,), xyxy, last seen."""
    keypoints: Array | None
    """(17, 3), last seen."""
    colours: Array | None
    """(C,), averaged over time."""
    velocity: Array
    """(2,), of the box's centre, per second."""
    seconds: float
    """When last seen."""

    def predicted(self, seconds: float) -> Array:
        """Return the expected movement (2,) since the track was last seen."""
        return self.velocity * min(seconds - self.seconds, MAX_PREDICTED_SECONDS)


class Tracker:
    """Gives people numbers, frame by frame; numbers count from 1 and are never used again.

    Args:
        max_gap_seconds: how long a person may be unseen before the track ends.
    """

    def __init__(self, *, max_gap_seconds: float = MAX_GAP_SECONDS) -> None:
        self.max_gap_seconds = max_gap_seconds
        self.tracks: list[Track] = []
        self.next_number = 1

    def expected(self, seconds: float) -> list[tuple[int, Array]]:
        """Return number and expected box (4,) of everyone seen a moment ago."""
        return [
            (track.number, track.box + np.tile(track.predicted(seconds), 2))
            for track in self.tracks
            if seconds - track.seconds <= MAX_PREDICTED_SECONDS
        ]

    def update(
        self,
        boxes: Array,
        seconds: float,
        *,
        keypoints: Array | None = None,
        colours: Array | None = None,
    ) -> list[int]:
        """Take the persons of the next frame and return the track number of each.

        Args:
            boxes: (P, 4), xyxy; x, y, width and height in one unit, the same in every call.
            seconds: time of the frame, not before the last one.
            keypoints: (P, 17, 3) in the same unit, and score; None where there are only boxes.
            colours: (P, C), histograms of clothes; None where there is no picture.
        """
        self.tracks = [t for t in self.tracks if seconds - t.seconds <= self.max_gap_seconds]
        numbers = [0] * len(boxes)
        if self.tracks and len(boxes):
            similarity = self._similarity(boxes, seconds, keypoints, colours)
            for row, column in assign(similarity):
                track = self.tracks[row]
                numbers[column] = track.number
                self._move(track, boxes[column], seconds)
                if keypoints is not None:
                    track.keypoints = keypoints[column]
                if colours is not None and track.colours is not None:
                    track.colours = track.colours + COLOUR_DECAY * (colours[column] - track.colours)

        for place, box in enumerate(boxes):
            if numbers[place] == 0:
                numbers[place] = self.next_number
                self.next_number += 1
                track = Track(
                    number=numbers[place],
                    box=box,
                    keypoints=None if keypoints is None else keypoints[place],
                    colours=None if colours is None else colours[place],
                    velocity=np.zeros(2, np.float32),
                    seconds=seconds,
                )
                self.tracks.append(track)
        return numbers

    def _similarity(
        self, boxes: Array, seconds: float, keypoints: Array | None, colours: Array | None
    ) -> Array:
        """Compare every track, moved on to now, with every person: (N, P)."""
        moved = np.stack([track.predicted(seconds) for track in self.tracks])
        before = np.stack([track.box for track in self.tracks]) + np.tile(moved, 2)
        gaps = np.array([seconds - track.seconds for track in self.tracks], np.float32)
        similarity = link_similarity(before, boxes, gaps)

        if keypoints is not None and all(t.keypoints is not None for t in self.tracks):
            earlier = np.stack([track.keypoints for track in self.tracks])  # type: ignore[misc]
            earlier = earlier + np.pad(moved, ((0, 0), (0, 1)))[:, None]
            alike = keypoint_similarity(earlier, box_area(before), keypoints, box_area(boxes))
            similarity = similarity + POSE_WEIGHT * alike
        if colours is not None and all(t.colours is not None for t in self.tracks):
            worn = np.stack([track.colours for track in self.tracks])  # type: ignore[misc]
            similarity = similarity + COLOUR_WEIGHT * colour_similarity(worn, colours)
        return similarity

    def _move(self, track: Track, box: Array, seconds: float) -> None:
        elapsed = seconds - track.seconds
        if elapsed > 0:
            movement = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2
            track.velocity = track.velocity + VELOCITY_DECAY * (movement / elapsed - track.velocity)
        track.box, track.seconds = box, seconds


def link_similarity(before: Array, after: Array, gap_seconds: Array) -> Array:
    """Return how similar boxes of two frames are, as candidates for the same person.

    IoU where boxes overlap; else minus the distance of their centres in mean box heights; -inf
    for centres too far apart for the time between, or sizes that differ too much.

    Args:
        before: (N, 4); after: (M, 4); xyxy in the same units.
        gap_seconds: (N,), time since each of the former was seen.

    Returns:
        (N, M).
    """
    iou = box_iou(before, after)
    centre_before, centre_after = ((b[:, :2] + b[:, 2:]) / 2 for b in (before, after))
    side_before, side_after = ((b[:, 2:] - b[:, :2]).max(axis=1) for b in (before, after))

    mean_side = np.maximum((side_before[:, None] + side_after) / 2, 1e-6)
    distance = np.linalg.norm(centre_before[:, None] - centre_after, axis=2) / mean_side
    ratio = side_before[:, None] / np.maximum(side_after, 1e-6)
    reach = np.minimum(NEAR_DISTANCE + HEIGHTS_PER_SECOND * gap_seconds, MAX_DISTANCE)

    similarity = np.where(iou > MIN_IOU, iou, -distance)
    too_different = (ratio > MAX_RATIO) | (ratio < 1 / MAX_RATIO)
    similarity[too_different | (distance > reach[:, None])] = -np.inf
    return similarity


def assign(similarity: Array) -> list[tuple[int, int]]:
    """Pair rows with columns, as many as may be, so that the sum of their similarities is highest.

    Args:
        similarity: (N, M); -inf forbids a pair.
    """
    allowed = np.isfinite(similarity)
    # a forbidden pair costs more than all allowed ones can gain
    forbidden = -1e3 * (1 + min(similarity.shape))
    rows, columns = linear_sum_assignment(np.where(allowed, similarity, forbidden), maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if allowed[row, column]]


def link_persons(
    boxes_of_frames: Sequence[Tensor],
    seconds: Sequence[float],
    *,
    max_gap_seconds: float = MAX_GAP_SECONDS,
) -> list[list[int]]:
    """Give every box a track number that stays with the person.

    Args:
        boxes_of_frames: per frame boxes (P, 4) of which x, y, width and height share one unit.
        seconds: time of each frame.
        max_gap_seconds: how long a person may be unseen before the track ends.

    Returns:
        Per frame one track number per box.
    """
    tracker = Tracker(max_gap_seconds=max_gap_seconds)
    pairs = zip(boxes_of_frames, seconds, strict=True)
    return [tracker.update(boxes.numpy(), now) for boxes, now in pairs]
