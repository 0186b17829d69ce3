"""People followed from frame to frame: in a file, or as the frames of a camera come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marey.persons.poses import FramePoses, PoseFinder
from marey.persons.similarity import box_iou, clothes_colours
from marey.persons.tracks import Tracker
from marey.video.decode import VideoReader

Array = NDArray[np.floating]

DETECT_EVERY_SECONDS = 0.22
"""The person detector is asked this often; in between, the tracks say where people may be."""

KEPT_DETECTION = 0.85
"""Share of a detector's score that is left one frame later."""

SAME_PROPOSAL = 0.3
"""A track's expected box that overlaps a detector's box more is no proposal of its own."""

CHUNK_FRAMES = 16
"""Frames decoded together: bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class TrackedFrame:
    """One frame with its numbered people."""

    frame_index: int
    seconds: float
    people: FramePoses
    numbers: tuple[int, ...]
    """Track of each person, from 1."""


class Follower:
    """Finds the people of one frame after the other and numbers them.

    Args:
        finder: who finds the people.
        video: name of the video, for a detector that reads boxes from a file.
    """

    def __init__(self, finder: PoseFinder, *, video: str = "") -> None:
        self.finder = finder
        self.video = video
        self.tracker = Tracker()
        self.detections: dict[int, float] = {}
        self.next_detection = -np.inf

    def __call__(self, frame: Tensor, frame_index: int, seconds: float) -> TrackedFrame:
        """Take the next frame, uint8 (3, H, W), and its time."""
        H, W = frame.shape[-2:]
        unit = np.array([W / H, 1, W / H, 1], np.float32)
        boxes, scores = self._proposals(frame, seconds, unit)
        people = self.finder.look(frame, boxes, scores)

        numbers = self.tracker.update(
            people.boxes_xyxy_norm * unit,
            seconds,
            keypoints=people.keypoints * np.array([W / H, 1, 1], np.float32),
            colours=clothes_colours(frame.numpy(), people.boxes_xyxy_norm),
        )
        self.detections = dict(zip(numbers, people.detector_scores.tolist(), strict=True))
        return TrackedFrame(
            frame_index=frame_index, seconds=seconds, people=people, numbers=tuple(numbers)
        )

    def _proposals(self, frame: Tensor, seconds: float, unit: Array) -> tuple[Array, Array]:
        """Return boxes in [0, 1] and scores from the detector, when it is its turn, and tracks."""
        if self.finder.trust_detector:
            return self.finder.propose(frame, self.video, seconds)

        detected = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        if self.finder.detector is not None and seconds >= self.next_detection - 1e-6:
            detected = self.finder.propose(frame, self.video, seconds)
            self.next_detection = seconds + DETECT_EVERY_SECONDS

        expected = [
            (box / unit, KEPT_DETECTION * self.detections.get(number, 0.0))
            for number, box in self.tracker.expected(seconds)
            if self.detections.get(number, 0.0) > 0
        ]
        if not expected:
            return detected
        boxes = np.stack([box for box, _ in expected]).astype(np.float32)
        scores = np.array([score for _, score in expected], np.float32)
        new = box_iou(boxes, detected[0]).max(axis=1, initial=0) < SAME_PROPOSAL
        return np.concatenate([detected[0], boxes[new]]), np.concatenate([detected[1], scores[new]])


def follow(
    reader: VideoReader, indices: Sequence[int], finder: PoseFinder
) -> Iterator[TrackedFrame]:
    """Yield the people of these frames (rising indices) of a video, numbered."""
    follower = Follower(finder, video=reader.path)
    wanted = set(indices)
    for clip in reader.iterate(indices[0], indices[-1] + 1, chunk=CHUNK_FRAMES):
        for frame, index in zip(clip.frames, clip.frame_indices, strict=True):
            if index in wanted:
                yield follower(frame, index, reader.frame_seconds[index])
