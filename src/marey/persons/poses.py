"""Who is where in each frame, and in which pose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from marey.errors import UserError
from marey.persons.boxes import PersonFinder
from marey.persons.movenet import decode_people
from marey.persons.network import STRIDE, Network, letterbox
from marey.persons.similarity import box_area, box_iou, keypoint_similarity

Array = NDArray[np.floating]

Glance = tuple[Array, Array, Array]
"""Keypoints (P, 17, 3), boxes (P, 4), both in pixels of the frame, and scores (P,) of a frame."""

MIN_SCORE = 0.25
"""Of a person: pose score + `DETECTOR_SHARE` x detector score."""

DETECTOR_SHARE = 0.5
"""What a person detector's score adds to the score of the pose."""

MIN_PROPOSED = 0.1
"""Whole-frame finds below it are not even looked at again."""

MIN_CENTER = 0.1
"""Peaks of the centre map below it are not decoded."""

MATCH_IOU = 0.45
"""A detector's box and a pose's box that overlap more are one person."""

LOOK_SIZE = 128
"""Side of the picture of one person in the second look, in pixels."""
LOOK_MARGIN = 1.4
"""Side of the window of the second look, in longer sides of the person's box."""
LOOK_IOU = 0.3
"""The second look's pose must overlap the box that was looked at at least this much."""
SMALL_PIXELS = 64
"""People lower than this in the network's picture get a second look at their keypoints."""

SAME_POSE = 0.55
"""Of two poses more alike than this (`keypoint_similarity`) the lower-scored one is a duplicate."""
SAME_BOX = 0.8
"""As `SAME_POSE`, by the IoU of the boxes."""

TILE_OVERLAP = 0.25
"""Share of a tile's side that it has in common with its neighbour."""


@dataclass(frozen=True, kw_only=True)
class FramePoses:
    """The people of one frame, best first."""

    keypoints: Array
    """(P, 17, 3): x, y in [0, 1] of the frame's width and height, and score in [0, 1]; COCO's
    order. A keypoint outside the picture may lie a little beyond [0, 1]; those of a person in
    whom no pose was found lie in the middle of the box, with scores of 0."""
    boxes_xyxy_norm: Array
    """(P, 4), in [0, 1]."""
    scores: Array
    """(P,), in [0, 1]: how sure it is that this is a person in this pose."""
    detector_scores: Array
    """(P,), in [0, 1]: of the person detector alone; 0 where it saw nobody."""

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, which: NDArray[np.integer] | NDArray[np.bool_]) -> FramePoses:
        """Return some of the people, by index or mask."""
        return FramePoses(
            keypoints=self.keypoints[which],
            boxes_xyxy_norm=self.boxes_xyxy_norm[which],
            scores=self.scores[which],
            detector_scores=self.detector_scores[which],
        )


class PoseFinder:
    """MoveNet multipose on whole frames, and a second look at single people.

    A person detector, where one is given, proposes boxes; what the whole frame did not show clearly
    (proposals without a pose, poses with a low score, small people) is cut out, enlarged and looked
    at again. Without a detector only the whole frame is looked at.

    Args:
        detector: proposes boxes; None: nobody does.
        trust_detector: every box of the detector is a person, and nobody else is.
        image_size: long side of the picture the network sees, in pixels; a multiple of 32. Time
            grows with its square.
        tiles: the frame is also looked at in tiles x tiles overlapping parts, for small people;
            time grows with its square.
        max_people: largest number of people in a frame.
        max_looks: largest number of second looks in a frame: bounds the time.
        min_score: people below it are not reported.
        threads: frames that `follow` looks at at once; None takes as many as torch has threads.
            A network computes with one: two need more processor time and are no faster.

    Raises:
        UserError: if a value is out of range.
    """

    def __init__(
        self,
        detector: PersonFinder | None = None,
        *,
        trust_detector: bool = False,
        image_size: int = 256,
        tiles: int = 1,
        max_people: int = 30,
        max_looks: int = 8,
        min_score: float = MIN_SCORE,
        threads: int | None = None,
    ) -> None:
        if image_size < STRIDE or image_size % STRIDE:
            raise UserError(f"image_size is a multiple of {STRIDE}, got {image_size}; 256 is usual")
        if max_people < 1 or tiles < 1:
            raise UserError(f"max_people and tiles are at least 1, got {max_people} and {tiles}")
        self.detector = detector
        self.trust_detector = trust_detector
        self.image_size = image_size
        self.tiles = tiles
        self.max_people = max_people
        self.max_looks = max_looks
        self.min_score = min_score
        self.threads = torch.get_num_threads() if threads is None else max(1, threads)
        self.network = Network("movenet-multipose", threads=1)

    def settings(self) -> dict[str, object]:
        """Return what the answers depend on, to name stored ones by."""
        return {
            "detector": type(self.detector).__name__,
            "trust_detector": self.trust_detector,
            "image_size": self.image_size,
            "tiles": self.tiles,
            "max_people": self.max_people,
            "max_looks": self.max_looks,
            "min_score": self.min_score,
        }

    def __call__(self, frames: Tensor) -> list[FramePoses]:
        """Find the people of each uint8 frame of (T, 3, H, W), each frame by itself."""
        return [self.look(frame, *self.propose(frame)) for frame in frames]

    def propose(self, frame: Tensor, video: str = "", seconds: float = 0.0) -> tuple[Array, Array]:
        """Ask the detector: boxes_xyxy_norm (Q, 4) and scores (Q,); none without a detector."""
        if self.detector is None:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
        boxes, scores = self.detector(frame, video, seconds)
        return boxes.numpy().astype(np.float32), scores.numpy().astype(np.float32)

    def glance(self, frame: Tensor) -> Glance:
        """Look at a whole uint8 frame (3, H, W): the part of `look` that needs no proposals, and
        may be done beforehand and elsewhere."""
        if self.trust_detector:
            nothing = np.zeros(0, np.float32)
            return np.zeros((0, 17, 3), np.float32), np.zeros((0, 4), np.float32), nothing
        return self._whole_frame(frame)

    def look(
        self,
        frame: Tensor,
        boxes_xyxy_norm: Array,
        box_scores: Array,
        glance: Glance | None = None,
    ) -> FramePoses:
        """Find the people of one frame, given proposals.

        Args:
            frame: uint8, (3, H, W).
            boxes_xyxy_norm: (Q, 4), where people may be.
            box_scores: (Q,), in [0, 1]: how sure it is that there is one.
            glance: what `glance` returned for this frame; None: it is asked now.
        """
        H, W = frame.shape[-2:]
        size = np.array([W, H, W, H], np.float32)
        people = _People(boxes=boxes_xyxy_norm * size, detector_scores=box_scores)
        if not self.trust_detector:
            people.add_whole_frame(*(self.glance(frame) if glance is None else glance))

        small = SMALL_PIXELS * max(H, W) / self.image_size
        limit = len(box_scores) if self.trust_detector else self.max_looks
        for index in people.unclear(self.min_score, small)[:limit]:
            keypoints, boxes, scores = self._closer(frame, people.boxes[index])
            people.see(index, keypoints, boxes, scores, keep_box=self.trust_detector)

        found = people.answer(size, trust_detector=self.trust_detector)
        found = without_duplicates(found, aspect=W / H)
        if not self.trust_detector:
            found = found.take(found.scores >= self.min_score)
        return found.take(np.arange(min(len(found), self.max_people)))

    def _whole_frame(self, frame: Tensor) -> Glance:
        """Return keypoints, boxes (in pixels of the frame) and scores of whole frame and tiles."""
        parts = []
        for left, top, right, bottom in tile_windows(*frame.shape[-2:], tiles=self.tiles):
            picture, scale = letterbox(frame[None, :, top:bottom, left:right], self.image_size)
            keypoints, boxes, scores = self._people(picture)
            keypoints[..., :2] = keypoints[..., :2] / scale + (left, top)
            boxes = boxes / scale + (left, top, left, top)
            parts.append((keypoints, boxes, scores))
        keypoints, boxes, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        clear = scores >= MIN_PROPOSED
        return keypoints[clear], boxes[clear].astype(np.float32), scores[clear]

    def _closer(self, frame: Tensor, box: Array) -> tuple[Array, Array, Array]:
        """Look at a window around one box; the answer is in pixels of the frame."""
        picture, scale, corner = window_around(frame, box, LOOK_MARGIN, LOOK_SIZE)
        keypoints, boxes, scores = self._people(picture[None])
        keypoints[..., :2] = keypoints[..., :2] / scale + corner
        return keypoints, boxes / scale + np.tile(corner, 2), scores

    def _people(self, picture: Tensor) -> tuple[Array, Array, Array]:
        heads = self.network(picture.numpy().astype(np.float32))
        return decode_people(
            {name: head[0] for name, head in heads.items()},
            max_people=self.max_people,
            min_center=MIN_CENTER,
        )


class _People:
    """Everyone who may be in a frame, in pixels of the frame: proposals first, then more poses."""

    def __init__(self, *, boxes: Array, detector_scores: Array) -> None:
        self.boxes = boxes.copy()
        self.detector_scores = detector_scores
        # without a pose yet: keypoints in the middle of the box, with scores of 0
        middle = np.pad((boxes[:, :2] + boxes[:, 2:]) / 2, ((0, 0), (0, 1)))
        self.keypoints = np.repeat(middle[:, None], 17, axis=1)
        self.pose_scores = np.zeros(len(boxes), np.float32)

    def add_whole_frame(self, keypoints: Array, boxes: Array, scores: Array) -> None:
        """Give each pose to the proposal it overlaps most; the others are people without one."""
        iou = box_iou(self.boxes, boxes)
        taken = []
        for pose in np.argsort(-scores, kind="stable"):
            proposal = int(iou[:, pose].argmax()) if len(self.boxes) else -1
            if proposal < 0 or iou[proposal, pose] < MATCH_IOU or self.pose_scores[proposal] > 0:
                continue
            self.keypoints[proposal] = keypoints[pose]
            self.pose_scores[proposal] = scores[pose]
            self.boxes[proposal] = boxes[pose]
            taken.append(pose)

        others = np.setdiff1d(np.arange(len(scores)), taken)
        self.keypoints = np.concatenate([self.keypoints, keypoints[others]])
        self.boxes = np.concatenate([self.boxes, boxes[others]])
        self.pose_scores = np.concatenate([self.pose_scores, scores[others]])
        nobody = np.zeros(len(others), np.float32)
        self.detector_scores = np.concatenate([self.detector_scores, nobody])

    def unclear(self, min_score: float, small: float) -> list[int]:
        """Return whom to look at again: those who are not certain first, then small ones.

        Args:
            min_score: of a certain person.
            small: height in pixels of the frame below which keypoints are coarse.
        """
        scores = self._scores()
        height = self.boxes[:, 3] - self.boxes[:, 1]
        uncertain = scores < min_score
        hopeful = uncertain | (self.pose_scores == 0)
        coarse = ~hopeful & (height < small)
        best_first = np.argsort(-(scores + hopeful), kind="stable")
        return [int(i) for i in best_first if (hopeful | coarse)[i]]

    def see(
        self, index: int, keypoints: Array, boxes: Array, scores: Array, *, keep_box: bool
    ) -> None:
        """Take the second look's pose for a person, if it is there and better than the first."""
        overlap = box_iou(self.boxes[[index]], boxes)[0]
        fitting = np.where(overlap > LOOK_IOU, overlap * scores, 0)
        if not len(fitting) or fitting.max() <= 0:
            return
        best = int(fitting.argmax())
        if scores[best] <= self.pose_scores[index]:
            return
        self.keypoints[index] = keypoints[best]
        self.pose_scores[index] = scores[best]
        if not keep_box:
            self.boxes[index] = boxes[best]

    def answer(self, size: Array, *, trust_detector: bool) -> FramePoses:
        """Return everyone, in shares of the frame's width and height."""
        keypoints = self.keypoints.copy()
        keypoints[..., :2] /= size[:2]
        return FramePoses(
            keypoints=keypoints,
            boxes_xyxy_norm=np.clip(self.boxes / size, 0, 1).astype(np.float32),
            scores=self.detector_scores if trust_detector else self._scores(),
            detector_scores=self.detector_scores,
        )

    def _scores(self) -> Array:
        return np.minimum(self.pose_scores + DETECTOR_SHARE * self.detector_scores, 1)


def without_duplicates(people: FramePoses, *, aspect: float) -> FramePoses:
    """Keep of several finds of one person the best, and sort by score.

    Args:
        aspect: width of the frame over its height, so that distances are the same both ways.
    """
    people = people.take(np.argsort(-people.scores, kind="stable"))
    keypoints = people.keypoints * np.array([aspect, 1, 1], np.float32)
    area = aspect * box_area(people.boxes_xyxy_norm)
    same_pose = keypoint_similarity(keypoints, area, keypoints, area) > SAME_POSE
    # poses without any score say nothing
    posed = people.keypoints[..., 2].max(axis=1, initial=0) > 0
    same_pose &= posed[:, None] & posed
    same = same_pose | (box_iou(people.boxes_xyxy_norm, people.boxes_xyxy_norm) > SAME_BOX)

    keep: list[int] = []
    for index in range(len(people)):
        if not same[index, keep].any():
            keep.append(index)
    return people.take(np.array(keep, np.intp))


def tile_windows(H: int, W: int, *, tiles: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the whole frame, then tiles x tiles overlapping parts: left, top, right, bottom."""
    yield 0, 0, W, H
    if tiles == 1:
        return
    share = 1 / (tiles - (tiles - 1) * TILE_OVERLAP)
    h, w = int(np.ceil(H * share)), int(np.ceil(W * share))
    for top in np.linspace(0, H - h, tiles).astype(int).tolist():
        for left in np.linspace(0, W - w, tiles).astype(int).tolist():
            yield left, top, left + w, top + h


def window_around(
    frame: Tensor, box_xyxy: Array, margin: float, size: int
) -> tuple[Tensor, float, Array]:
    """Cut out a square around a box and scale it; what lies outside the frame is black.

    Args:
        frame: uint8, (3, H, W).
        box_xyxy: (4,), in pixels.
        margin: side of the square, in longer sides of the box.
        size: side of the result, in pixels.

    Returns:
        uint8 (3, size, size), pixels of the result per pixel of the frame, and the square's top
        left corner x, y.
    """
    H, W = frame.shape[-2:]
    x1, y1, x2, y2 = box_xyxy.tolist()
    side = max(2, round(margin * max(x2 - x1, y2 - y1)))
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)

    inside = frame[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    outside = (-left, left + side - W, -top, top + side - H)
    padded = F.pad(inside, [max(width, 0) for width in outside])
    picture = F.interpolate(padded[None], size=(size, size), mode="bilinear", antialias=True)[0]
    return picture, size / side, np.array([left, top], np.float32)
