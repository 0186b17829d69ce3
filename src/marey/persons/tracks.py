"""Link the persons of successive frames into tracks, by place, movement, pose and clothes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from marey.persons.similarity import (
    box_area,
    box_iou,
    colour_similarity,
    intersection,
    keypoint_similarity,
)

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

SIZE_WEIGHT = 1.0
"""What each factor e between the longer sides takes from the IoU of the boxes."""

POSE_WEIGHT = 0.5
COLOUR_WEIGHT = 0.5
"""What equal keypoints and equal clothes add to the IoU of the boxes."""

VELOCITY_DECAY = 0.5
"""Share of a new measurement in the velocity of a track."""
MAX_PREDICTED_SECONDS = 0.4
"""A track is moved on by its velocity for no longer than this."""
COLOUR_DECAY = 0.2
"""Share of a new measurement in the colours of a track."""

TOUCHING_IOU = 0.15
"""Colours of people whose boxes overlap more are mixed, and are not learned."""
HIDDEN_SHARE = 0.3
"""A person whose last box is covered to this share by somebody else's may be hidden there."""
HIDDEN_SECONDS = 10.0
"""For how long a hidden person is remembered."""
MET_SECONDS = 1.0
"""For how long after one hid the other clothes decide who is who,"""
MET_COLOUR_WEIGHT = 2.5
"""with this weight."""


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
    hidden_by: int | None = None
    """Number of the track that covers this one; None: nobody does."""
    met_until: float = -np.inf
    """Until when this person may be taken for another whom they met."""

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
        self.tracks = [track for track in self.tracks if self._is_alive(track, seconds)]
        numbers = [0] * len(boxes)
        movements: dict[int, Array] = {}
        if self.tracks and len(boxes):
            similarity = self._similarity(boxes, seconds, keypoints, colours)
            for row, column in assign(similarity):
                track = self.tracks[row]
                numbers[column] = track.number
                movements[track.number] = self._move(track, boxes[column], seconds)
                if keypoints is not None:
                    track.keypoints = keypoints[column]
        self._hide(movements, seconds)
        if colours is not None:
            self._learn_colours(numbers, boxes, colours)

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
            met = np.array([track.met_until >= seconds for track in self.tracks])
            weight = np.where(met, MET_COLOUR_WEIGHT, COLOUR_WEIGHT)
            similarity = similarity + weight[:, None] * colour_similarity(worn, colours)
        return similarity

    def _is_alive(self, track: Track, seconds: float) -> bool:
        limit = self.max_gap_seconds if track.hidden_by is None else HIDDEN_SECONDS
        return seconds - track.seconds <= limit

    def _move(self, track: Track, box: Array, seconds: float) -> Array:
        """Take a track to its new box and return the movement (2,) of the centre."""
        elapsed = seconds - track.seconds
        movement = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2
        if elapsed > 0:
            track.velocity = track.velocity + VELOCITY_DECAY * (movement / elapsed - track.velocity)
        track.box, track.seconds, track.hidden_by = box, seconds, None
        return movement

    def _hide(self, movements: dict[int, Array], seconds: float) -> None:
        """Let those who are covered by somebody go along with them.

        Args:
            movements: number -> movement of everyone seen now.
            seconds: now.
        """
        seen = [track for track in self.tracks if track.number in movements]
        for track in self.tracks:
            if track.number in movements or not seen:
                continue
            covered = [_covered(track.box, other.box) for other in seen]
            best = int(np.argmax(covered))
            if covered[best] < HIDDEN_SHARE:
                track.hidden_by = None
                continue
            cover = seen[best]
            if track.hidden_by == cover.number:
                track.box = track.box + np.tile(movements[cover.number], 2)
            track.hidden_by = cover.number
            track.velocity = np.zeros(2, np.float32)
            track.met_until = cover.met_until = seconds + MET_SECONDS

    def _learn_colours(self, numbers: list[int], boxes: Array, colours: Array) -> None:
        """Average the clothes of everyone who touches nobody."""
        everybody = np.stack([track.box for track in self.tracks]) if self.tracks else boxes[:0]
        for track in self.tracks:
            if track.colours is None or track.number not in numbers:
                continue
            place = numbers.index(track.number)
            touching = box_iou(track.box[None], np.concatenate([everybody, boxes]))[0]
            # the track itself is among everybody, and its box among the boxes
            if (touching > TOUCHING_IOU).sum() <= 2:
                track.colours = track.colours + COLOUR_DECAY * (colours[place] - track.colours)


def _covered(box: Array, cover: Array) -> float:
    """Return which share of a box lies under another."""
    return float(intersection(box[None], cover[None])[0, 0] / max(box_area(box[None])[0], 1e-12))


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
    similarity -= SIZE_WEIGHT * np.abs(np.log(np.maximum(ratio, 1e-6)))
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
