"""Faces or whole persons made unrecognisable in frames that are written.

A region is reduced to a few blocks, which nothing brings back. Only people who are found can be
blurred; a person who is lost stays blurred where last seen for `HOLD_SECONDS`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from marey.errors import unknown_name
from marey.persons.follow import Follower
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.transforms.keypoints import HEAD

Array = NDArray[np.floating]

KINDS = ("faces", "persons")

MIN_SCORE = 0.15
"""Of a person to blur: lower than elsewhere, as a miss costs more than a blurred coat."""

BLOCKS = 5
"""Side of a blurred region, in blocks."""

HOLD_SECONDS = 0.6

MIN_KEYPOINT = 0.2
"""Keypoints of a head below it are not used."""

HEAD_WIDTH = 1.6
"""Side of a head, in distances between its keypoints furthest apart, and at least
`HEAD_SHARE` of the person's height."""
HEAD_SHARE = 0.16

PERSON_MARGIN = 0.08
"""Added on each side of a person's box, as a share of its sides."""


class Blur:
    """Blurs the frames of one video, given in order.

    Args:
        kind: "faces" or "persons".
        finder: who finds the people; None: `pose_finder("auto")` with a low threshold.

    Raises:
        UserError: if the kind is another.
    """

    def __init__(self, kind: str, finder: PoseFinder | None = None) -> None:
        if kind not in KINDS:
            raise unknown_name("kind of blur", kind, KINDS)
        self.kind = kind
        self.finder = pose_finder("auto", min_score=MIN_SCORE) if finder is None else finder
        self.follower = Follower(self.finder)
        self.last: dict[int, tuple[float, Array]] = {}

    def __call__(self, frame: Tensor, seconds: float) -> Tensor:
        """Return the uint8 frame (3, H, W) with everyone blurred who is or just was in it."""
        found = self.follower(frame, 0, seconds)
        size = np.tile(np.array(frame.shape[:0:-1], np.float32), 2)  # W, H, W, H
        regions = [
            head_region(keypoints * np.append(size[:2], 1), box * size)
            if self.kind == "faces"
            else person_region(box * size)
            for keypoints, box in zip(
                found.people.keypoints, found.people.boxes_xyxy_norm, strict=True
            )
        ]
        for number, region in zip(found.numbers, regions, strict=True):
            self.last[number] = seconds, region
        self.last = {n: kept for n, kept in self.last.items() if seconds - kept[0] <= HOLD_SECONDS}

        blurred = frame.clone()
        for _, region in self.last.values():
            _blur_region(blurred, region)
        return blurred

    def pictures(self, frames: Tensor) -> Tensor:
        """Return uint8 frames (T, 3, H, W), each blurred by itself."""
        return torch.stack([Blur(self.kind, self.finder)(frame, 0.0) for frame in frames])


def head_region(keypoints: Array, box_xyxy: Array) -> Array:
    """Return the square (4,) around a head: from its keypoints, else the top of the box.

    Args:
        keypoints: (17, 3), in pixels, and score.
        box_xyxy: (4,), in pixels.
    """
    head = keypoints[list(HEAD)]
    head = head[head[:, 2] >= MIN_KEYPOINT]
    least = HEAD_SHARE * (box_xyxy[3] - box_xyxy[1])
    if len(head) >= 2:
        middle = (head[:, :2].min(axis=0) + head[:, :2].max(axis=0)) / 2
        spread = np.linalg.norm(head[:, None, :2] - head[None, :, :2], axis=2).max()
        side = max(least, HEAD_WIDTH * spread)
    else:
        side = 1.5 * least
        middle = np.array([(box_xyxy[0] + box_xyxy[2]) / 2, box_xyxy[1] + side / 2])
    return np.concatenate([middle - side / 2, middle + side / 2]).astype(np.float32)


def person_region(box_xyxy: Array) -> Array:
    """Return a box (4,) with its margin, in the same pixels."""
    margin = PERSON_MARGIN * (box_xyxy[2:] - box_xyxy[:2])
    return np.concatenate([box_xyxy[:2] - margin, box_xyxy[2:] + margin]).astype(np.float32)


def _blur_region(frame: Tensor, region: Array) -> None:
    """Replace a region by `BLOCKS` x `BLOCKS` mean colours, in place."""
    H, W = frame.shape[-2:]
    left, top = (max(0, int(np.floor(v))) for v in region[:2])
    right, bottom = min(W, int(np.ceil(region[2]))), min(H, int(np.ceil(region[3])))
    if right <= left or bottom <= top:
        return
    patch = frame[None, :, top:bottom, left:right]
    blocks = F.interpolate(patch.float(), size=(BLOCKS, BLOCKS), mode="area")
    smooth = F.interpolate(blocks, size=patch.shape[-2:], mode="bilinear", align_corners=False)
    frame[:, top:bottom, left:right] = smooth[0].round().byte()


def load_blur(kind: str | None) -> Blur | None:
    """Build what `--blur` names; None where nothing is to be blurred."""
    return None if kind is None else Blur(kind)
