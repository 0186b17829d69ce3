"""A jointed body whose posture is given by a few curves: what composed motions are made with.

Axes: F moments, 2 sides (left, right). Metres and radians; y points up. In a body's own frame x
points to its left, y up and z forward. All joints are COCO's 17 (`transforms.keypoints`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marey.transforms.keypoints import MIRRORED

Array = NDArray[np.float64]

HIP, SPINE_LOW, SPINE_HIGH, SHOULDER = 0.095, 0.22, 0.28, 0.18
"""Half the width of the hips, hips to waist, waist to shoulders, half the width of the
shoulders."""

UPPER_ARM, FOREARM, THIGH, SHANK, HEAD_UP, ANKLE = 0.28, 0.26, 0.42, 0.42, 0.23, 0.08
"""Lengths of the limbs, shoulders to the middle of the head, and ground to ankle."""

ARM, LEG = UPPER_ARM + FOREARM, THIGH + SHANK

HIP_HEIGHT = LEG + ANKLE - 0.01
"""Of a body that stands with nearly straight knees."""


def turn(axis: str, angle: Array) -> Array:
    """Return rotations (F, 3, 3) about x (bends forward), y (turns left) or z (leans right)."""
    c, s = np.cos(angle), np.sin(angle)
    one, zero = np.ones_like(c), np.zeros_like(c)
    rows = {
        "x": [one, zero, zero, zero, c, -s, zero, s, c],
        "y": [c, zero, s, zero, one, zero, -s, zero, c],
        "z": [c, -s, zero, s, c, zero, zero, zero, one],
    }[axis]
    return np.stack(rows, axis=-1).reshape(*c.shape, 3, 3)


def apply(rotation: Array, vector: Array | tuple[float, float, float]) -> Array:
    """Rotate vectors (F, 3), or one vector (3,), by rotations (F, 3, 3)."""
    return np.einsum("...ij,...j->...i", rotation, np.asarray(vector, float))


@dataclass(kw_only=True)
class Posture:
    """Curves that say where a body is and how it is bent."""

    hips: Array
    """(F, 3), the middle of the hips in the world."""
    heading: Array
    """(F,), where the body faces; 0 looks along z."""
    feet: Array
    """(F, 2, 3), ankles in the world."""
    hands: Array
    """(F, 2, 3), wrists seen from their shoulder, in arm lengths: outward, up, forward of the
    trunk."""
    pelvis_pitch: Array
    """(F,), the hips bent forward."""
    bend: Array
    """(F,), the shoulders bent forward, against the vertical."""
    lean: Array
    """(F,), the trunk leaned to the right."""
    twist: Array
    """(F,), the shoulders turned to the left of the hips."""
    nod: Array
    """(F,), the head bent forward, against the vertical."""
    look: Array
    """(F,), the head turned to the left of the shoulders."""
    elbow: Array
    """(F, 2), elbows swung outward: 0 hangs down, 1 is level."""
    knee: Array
    """(F, 2), knees turned outward from where the body faces."""

    def joints(self) -> Array:
        """Return the joints (F, 17, 3); hands and feet out of reach come as near as limbs allow."""
        facing = turn("y", self.heading)
        pelvis = facing @ turn("x", self.pelvis_pitch)
        trunk = facing @ turn("y", self.twist) @ turn("x", self.bend) @ turn("z", self.lean)
        middle = facing @ turn("y", self.twist / 2)
        middle = middle @ turn("x", (self.pelvis_pitch + self.bend) / 2) @ turn("z", self.lean / 2)

        waist = self.hips + apply(middle, (0, SPINE_LOW, 0))
        shoulders = waist + apply(trunk, (0, SPINE_HIGH, 0))
        head_frame = facing @ turn("y", self.twist + self.look) @ turn("x", self.nod)
        head = (
            shoulders
            + apply(trunk, (0, HEAD_UP / 2, 0))
            + apply(head_frame, (0, HEAD_UP / 2, 0.02))
        )

        joints = np.zeros((len(self.hips), 17, 3))
        joints[:, :5] = face(head, head_frame)
        for side, sign in enumerate((1.0, -1.0)):
            shoulder = shoulders + apply(trunk, (sign * SHOULDER, 0, 0))
            wanted = self.hands[:, side] * (sign * ARM, ARM, ARM)
            swing = self.elbow[:, side, None] * (sign, 0, 0) + (1 - self.elbow[:, side, None]) * (
                0,
                -1,
                0,
            )
            pole = apply(trunk, swing + np.array((0.15 * sign, 0, -0.3)))
            wrist = shoulder + apply(trunk, wanted)
            joints[:, 5 + side] = shoulder
            joints[:, 7 + side], joints[:, 9 + side] = bend_limb(
                shoulder, wrist, pole, UPPER_ARM, FOREARM
            )

            hip = self.hips + apply(pelvis, (sign * HIP, 0, 0))
            knees = facing @ turn("y", sign * self.knee[:, side])
            pole = apply(knees, (0, 0, 1)) + 0.3 * apply(pelvis, (0, 0, 1))
            joints[:, 11 + side] = hip
            joints[:, 13 + side], joints[:, 15 + side] = bend_limb(
                hip, self.feet[:, side], pole, THIGH, SHANK
            )
        return joints


def bend_limb(
    root: Array, target: Array, pole: Array, upper: float, lower: float
) -> tuple[Array, Array]:
    """Place the middle and the end of a limb of two bones.

    Args:
        root, target: (F, 3), where the limb starts and where its end should be.
        pole: (F, 3), where the middle joint should point.
        upper, lower: lengths of the bones.

    Returns:
        Middle and end, each (F, 3). The end is the target, or the point nearest to it in reach.
    """
    way = target - root
    distance = np.linalg.norm(way, axis=-1, keepdims=True)
    direction = way / np.maximum(distance, 1e-6)
    distance = np.clip(distance, 0.25 * (upper + lower), 0.999 * (upper + lower))

    # law of cosines: how far along the way the middle joint is, and how far off it
    along = (distance**2 + upper**2 - lower**2) / (2 * distance)
    off = np.sqrt(np.maximum(upper**2 - along**2, 0))
    sideways = pole - (pole * direction).sum(-1, keepdims=True) * direction
    sideways /= np.maximum(np.linalg.norm(sideways, axis=-1, keepdims=True), 1e-6)
    return root + along * direction + off * sideways, root + distance * direction


def face(head: Array, frame: Array) -> Array:
    """Return nose, eyes and ears (F, 5, 3) of heads with their middle at (F, 3), turned by `frame`
    (F, 3, 3)."""
    places = (
        (0, -0.01, 0.11),
        (0.03, 0.03, 0.09),
        (-0.03, 0.03, 0.09),
        (0.075, 0.01, 0),
        (-0.075, 0.01, 0),
    )
    return np.stack([head + apply(frame, place) for place in places], axis=1)


def face_of(neck: Array, head: Array, top: Array, left: Array, right: Array) -> Array:
    """Return nose, eyes and ears (F, 5, 3) where only a skull is known.

    Args:
        neck, top: (F, 3), two points of the axis of the head.
        head: (F, 3), its middle.
        left, right: (F, 3), the shoulders, which say where it faces.
    """
    up = unit(top - neck)
    forward = unit(np.cross(unit(left - right), up))
    side = np.cross(up, forward)
    return face(head, np.stack([side, up, forward], axis=-1))


def unit(vectors: Array) -> Array:
    """Divide vectors (..., 3) by their lengths."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


CHILDREN: tuple[tuple[int, int, str], ...] = (
    (5, 7, "arm"),
    (6, 8, "arm"),
    (7, 9, "arm"),
    (8, 10, "arm"),
    (11, 13, "leg"),
    (12, 14, "leg"),
    (13, 15, "leg"),
    (14, 16, "leg"),
)
"""Limbs: start, end, kind; starts come before ends."""


def reshape_body(
    joints: Array, *, arm: float = 1, leg: float = 1, trunk: float = 1, width: float = 1
) -> Array:
    """Give a motion another body: lengths are multiplied, directions stay.

    The ground stays where it was: heights above it are scaled with the legs.

    Args:
        joints: (F, 17, 3).
        arm, leg, trunk, width: factors of arms, legs, hips to shoulders, and of the widths of both.

    Returns:
        (F, 17, 3).
    """
    hips = joints[:, 11:13].mean(1)
    shoulders = joints[:, 5:7].mean(1)
    new_hips = hips * leg
    new_shoulders = new_hips + (shoulders - hips) * trunk

    out = np.empty_like(joints)
    out[:, :5] = new_shoulders[:, None] + joints[:, :5] - shoulders[:, None]
    out[:, 5:7] = new_shoulders[:, None] + (joints[:, 5:7] - shoulders[:, None]) * width
    out[:, 11:13] = new_hips[:, None] + (joints[:, 11:13] - hips[:, None]) * width
    factors = {"arm": arm, "leg": leg}
    for start, end, kind in CHILDREN:
        out[:, end] = out[:, start] + (joints[:, end] - joints[:, start]) * factors[kind]

    lowest = joints[..., 1].min(1) * leg
    out[..., 1] += (lowest - out[..., 1].min(1))[:, None]
    return out


def mirror_body(joints: Array) -> Array:
    """Return the mirror image of a motion (F, 17, 3), left and right swapped by name."""
    return joints[:, list(MIRRORED)] * np.array([-1.0, 1.0, 1.0])
