"""COCO's 17 keypoints of a person: names, mirror image, bones, and the parts of a body."""

from __future__ import annotations

KEYPOINT_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""In COCO's order; left and right are the person's own."""

NUM_KEYPOINTS = len(KEYPOINT_NAMES)

MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
"""Entry i is the keypoint that takes the place of keypoint i in a mirror."""

BONES = (
    (5, 7),
    (7, 9),
    (6, 8),
    (8, 10),
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
    (5, 6),
    (11, 12),
    (5, 11),
    (6, 12),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
)
"""Pairs of keypoints that are drawn as lines: arms, legs, trunk, head."""

HEAD = (0, 1, 2, 3, 4)
"""The keypoints of the head."""

TRUNK = (5, 6, 11, 12)
"""Shoulders and hips."""

PART_NAMES = ("head", *(name.replace("_", " ") for name in KEYPOINT_NAMES[5:]))
"""The parts of a body that are tokens of a pose model: the head as one, then the keypoints below
it."""
