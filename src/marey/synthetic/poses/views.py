"""A camera that looks at joints in space: what is where in its picture, and how near.

Axes: F moments, 17 keypoints. World: metres, y up. Picture: x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses.actor import smooth, sway
from marey.synthetic.poses.body import turn

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class View:
    """Where a camera stands and how it is held."""

    azimuth: float
    """Radians, about the vertical."""
    elevation: float
    """Radians above the person; surveillance looks down."""
    distance: float
    """Metres to the middle of the motion; near cameras see more perspective."""
    roll: float
    """Radians the picture is turned."""
    pan: float
    """Share of the person's way that the camera follows, 0 to 1."""
    shake: float
    """Standard deviation of hand-held shake, in metres at the person."""
    stretch: float = 1.0
    """Width of a pixel over its height."""


PARTITIONS = {
    "train": tuple((start, start + 40.0) for start in range(0, 360, 60)),
    "val": tuple((start + 40.0, start + 50.0) for start in range(0, 360, 60)),
    "test": tuple((start + 50.0, start + 60.0) for start in range(0, 360, 60)),
}
"""Azimuths in degrees of each split; no azimuth of one can occur in another."""


def draw_view(rng: Generator, split: str) -> View:
    """Draw a camera from the azimuths of a split; most at eye level, some high as in
    surveillance."""
    low, high = PARTITIONS[split][rng.integers(len(PARTITIONS[split]))]
    elevation = rng.uniform(-5, 18) if rng.random() < 0.6 else rng.uniform(15, 60)
    return View(
        azimuth=np.deg2rad(rng.uniform(low, high)),
        elevation=np.deg2rad(elevation),
        distance=np.exp(rng.uniform(np.log(2.8), np.log(20))),
        roll=np.deg2rad(rng.normal(0, 3)),
        pan=rng.uniform(0.3, 1) if rng.random() < 0.3 else 0.0,
        shake=rng.uniform(0.005, 0.06) if rng.random() < 0.4 else 0.0,
        stretch=np.exp(rng.normal(0, 0.05)),
    )


def look(joints: Array, view: View, seconds: Array, rng: Generator) -> tuple[Array, Array]:
    """Project a motion.

    Args:
        joints: (F, 17, 3).
        seconds: (F,), for shake.

    Returns:
        Picture (F, 17, 2), about one unit per metre at the middle of the motion; depth (F, 17),
        metres beyond that middle.
    """
    middle = joints.mean(1)
    target = middle.mean(0) + (view.pan * (smooth(middle, 9) - middle.mean(0)))  # (F, 3)
    target = target + sway(rng, seconds, view.shake, 3.0, 3)
    seen = joints - target[:, None]

    once = np.ones(1)
    rotation = (
        turn("z", view.roll * once)
        @ turn("x", view.elevation * once)
        @ turn("y", -view.azimuth * once)
    )
    local = np.einsum("ij,fkj->fki", rotation[0], seen)  # z towards the camera
    depth = -local[..., 2]
    scale = view.distance / np.maximum(view.distance + depth, 0.3 * view.distance)
    picture = np.stack([local[..., 0] * view.stretch, -local[..., 1]], axis=-1) * scale[..., None]
    return picture, depth
