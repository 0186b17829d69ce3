"""People followed from frame to frame: in a file, or as the frames of a camera come in."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marey.persons.poses import FramePoses, Glance, PoseFinder
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

AHEAD_PER_THREAD = 8
"""Frames that wait for their turn, per thread that looks at frames: enough that no thread is idle
while the detector, or a second look at somebody, takes longer."""


Proposals = tuple[Array, Array]
"""Boxes (Q, 4) in [0, 1] and scores (Q,)."""


@dataclass(frozen=True, kw_only=True)
class TrackedFrame:
    """One frame with its numbered people."""

    frame_index: int
    seconds: float
    people: FramePoses
    numbers: tuple[int, ...]
    """Track of each person, from 1."""


class DetectorTurns:
    """When the person detector is asked: at every frame if it decides alone, else from time to
    time, never without one."""

    def __init__(self, finder: PoseFinder, every_seconds: float = DETECT_EVERY_SECONDS) -> None:
        self.finder = finder
        self.every_seconds = every_seconds
        self.next_seconds = -np.inf

    def __call__(self, seconds: float) -> bool:
        """Return whether it is asked at a time; times rise."""
        if self.finder.detector is None or self.finder.trust_detector:
            return self.finder.trust_detector
        if seconds < self.next_seconds - 1e-6:
            return False
        self.next_seconds = seconds + self.every_seconds
        return True


class Follower:
    """Finds the people of one frame after the other and numbers them.

    Args:
        finder: who finds the people.
        video: name of the video, for a detector that reads boxes from a file.
        detect_every_seconds: how often the person detector is asked.
    """

    def __init__(
        self,
        finder: PoseFinder,
        *,
        video: str = "",
        detect_every_seconds: float = DETECT_EVERY_SECONDS,
    ) -> None:
        self.finder = finder
        self.video = video
        self.tracker = Tracker()
        self.detections: dict[int, float] = {}
        self.turns = DetectorTurns(finder, detect_every_seconds)

    def __call__(
        self,
        frame: Tensor,
        frame_index: int,
        seconds: float,
        *,
        glance: Glance | None = None,
        detected: Proposals | None = None,
    ) -> TrackedFrame:
        """Take the next frame, uint8 (3, H, W), and its time.

        Args:
            glance: of this frame, if the finder has been asked before.
            detected: what the detector proposes for this frame, if it has been asked before.
        """
        H, W = frame.shape[-2:]
        unit = np.array([W / H, 1, W / H, 1], np.float32)
        if self.turns(seconds) and detected is None:
            detected = self.finder.propose(frame, self.video, seconds)
        boxes, scores = self._proposals(detected, seconds, unit)
        people = self.finder.look(frame, boxes, scores, glance)

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

    def _proposals(self, detected: Proposals | None, seconds: float, unit: Array) -> Proposals:
        """Return boxes in [0, 1] and scores from the detector, when it is its turn, and tracks."""
        if detected is None:
            detected = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        if self.finder.trust_detector:
            return detected

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
    reader: VideoReader,
    indices: Sequence[int],
    finder: PoseFinder,
    *,
    detect_every_seconds: float = DETECT_EVERY_SECONDS,
) -> Iterator[TrackedFrame]:
    """Yield the people of these frames (rising indices) of a video, numbered.

    What needs no other frame, the look at whole frames and the detector's proposals, is done by
    `finder.threads` threads for the frames to come; the answers are those of one frame after the
    other.
    """
    follower = Follower(finder, video=reader.path, detect_every_seconds=detect_every_seconds)
    if finder.threads == 1:
        for index, frame in reader.stream(indices):
            yield follower(frame, index, reader.frame_seconds[index])
        return

    ahead = reader.chunk_frames(AHEAD_PER_THREAD * finder.threads)
    # the detector has a thread of its own: not every one can be asked twice at a time
    with _pool(finder.threads) as looks, _pool(1) as detections:
        turns = DetectorTurns(finder, detect_every_seconds)
        waiting: deque[Callable[[], TrackedFrame]] = deque()
        for index, frame in reader.stream(indices):
            seconds = reader.frame_seconds[index]
            glance = looks.submit(finder.glance, frame)
            detected = None
            if turns(seconds):
                detected = detections.submit(finder.propose, frame, reader.path, seconds)
            waiting.append(_when_done(follower, frame, index, seconds, glance, detected))
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()


def _when_done(
    follower: Follower,
    frame: Tensor,
    index: int,
    seconds: float,
    glance: Future[Glance],
    detected: Future[Proposals] | None,
) -> Callable[[], TrackedFrame]:
    """Return a function that follows people through a frame as soon as it has been looked at."""

    def take() -> TrackedFrame:
        proposed = None if detected is None else detected.result()
        return follower(frame, index, seconds, glance=glance.result(), detected=proposed)

    return take


@contextlib.contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose outstanding work is dropped where the reader of `follow` stops early."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
