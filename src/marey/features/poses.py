"""A video's poses as one vector: statistics over time of where two people hold their joints.

The two most present people are put side by side, each facing the other, in units of a torso's
length. Which of them is left, how large they are and how long the video is cannot be read from the
vector.

Legend: F moments, P = 2 people, J = 17 joints (COCO's order), Q quantities.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marey.persons.pose_tracks import PoseTracks

Array = NDArray[np.floating]

PEOPLE = 2
SECONDS = 3.0
"""Length of the window in the middle of a video that is described; a shorter video is taken
whole."""
NOSE, SHOULDERS, ELBOWS, WRISTS = (0,), (5, 6), (7, 8), (9, 10)
HIPS, KNEES, ANKLES = (11, 12), (13, 14), (15, 16)
PAIRS = (WRISTS, ANKLES, KNEES, ELBOWS)
REACHES = (
    (WRISTS, NOSE),
    (WRISTS, SHOULDERS),
    (WRISTS, HIPS),
    (WRISTS, WRISTS),
    (ANKLES, HIPS + KNEES + ANKLES[:1]),
    (ANKLES, SHOULDERS),
    (NOSE, NOSE),
    (WRISTS, ELBOWS),
)
"""Joints of one person, joints of the other: the smallest distance between them is a quantity."""
QUANTILES, SPEED_QUANTILES = (5, 25, 50, 75, 95), (50, 80, 95)
MIN_TORSO = 1e-3
"""Of the frame height; shorter torsos are not divided by."""


def pose_vector(tracks: PoseTracks) -> Tensor:
    """Describe the two most present people of a video, float32 (E,), `POSE_DIM` values.

    A person who is alone stands for both. Without people the vector is zero.
    """
    if not tracks.tracks:
        return torch.zeros(POSE_DIM)
    keypoints = _interpolated(_two_people(tracks))
    wanted = round(SECONDS * tracks.fps)
    first = max(0, (len(keypoints) - wanted) // 2)
    return torch.from_numpy(describe(keypoints[first : first + wanted], tracks.fps))


def describe(keypoints: Array, fps: float) -> NDArray[np.float32]:
    """Describe two people: sum, difference, larger and smaller of each statistic of both.

    Args:
        keypoints: (F, 2, 17, 2), x and y in any one unit.
        fps: moments per second.

    Returns:
        float32 (E,), unchanged when the people change places.
    """
    hips = keypoints[:, :, HIPS].mean(2)  # (F, P, 2)
    shoulders = keypoints[:, :, SHOULDERS].mean(2)
    torso = max(float(np.median(np.linalg.norm(hips - shoulders, axis=-1))), MIN_TORSO)
    keypoints, hips, shoulders = keypoints / torso, hips / torso, shoulders / torso

    gap = hips[:, 0] - hips[:, 1]
    side = float(np.sign(np.median(gap[:, 0]))) or 1.0
    one = _person(keypoints, hips, shoulders, 0, -side, fps)
    other = _person(keypoints, hips, shoulders, 1, side, fps)
    both = (one + other, np.abs(one - other), np.maximum(one, other), np.minimum(one, other))
    return np.concatenate((*both, _statistics(np.abs(gap), fps))).astype(np.float32)


def _person(
    keypoints: Array, hips: Array, shoulders: Array, person: int, facing: float, fps: float
) -> Array:
    """Describe one of two people; x points to the other person."""
    towards = np.array([facing, 1.0])
    origin = hips[:, person, None]
    own = (keypoints[:, person] - origin) * towards  # (F, J, 2), from the middle of the hips
    others = (keypoints[:, 1 - person] - origin) * towards

    # Of a left and a right joint, the one nearer to the other person comes first.
    sorted_pairs = [np.sort(own[:, pair], axis=1)[:, ::-1].reshape(len(own), -1) for pair in PAIRS]
    reaches = [
        np.linalg.norm(own[:, a][:, :, None] - others[:, b][:, None], axis=-1).min(axis=(1, 2))
        for a, b in REACHES
    ]
    shoulder = (shoulders[:, person] - hips[:, person]) * towards
    reach = own[:, WRISTS, 0].max(1, keepdims=True) - shoulder[:, :1]
    path = (hips[:, person] - hips[:1, person]) * towards
    quantities = np.concatenate(
        (own[:, 0], *sorted_pairs, shoulder, np.stack(reaches, 1), reach, path), axis=1
    )  # (F, Q)

    moved = np.linalg.norm(np.diff(keypoints[:, person], axis=0), axis=-1) * fps  # (F - 1, J)
    if len(moved) == 0:
        moved = np.zeros((1, keypoints.shape[2]))
    speeds = np.percentile(moved, (*SPEED_QUANTILES, 100), axis=0)
    return np.concatenate((_statistics(quantities, fps), speeds.ravel()))


def _statistics(quantities: Array, fps: float) -> Array:
    """Return mean, standard deviation and quantiles over time of quantities (F, Q) and of their
    speeds."""
    speeds = np.abs(np.diff(quantities, axis=0)) * fps
    if len(speeds) == 0:
        speeds = np.zeros_like(quantities)
    return np.concatenate(
        (
            quantities.mean(0),
            quantities.std(0),
            *np.percentile(quantities, QUANTILES, axis=0),
            speeds.mean(0),
            *np.percentile(speeds, SPEED_QUANTILES, axis=0),
        )
    )


def _two_people(tracks: PoseTracks) -> Array:
    """Return the keypoints of the two most present people, (F, 2, 17, 2), NaN where unseen."""
    place = {int(index): moment for moment, index in enumerate(tracks.frame_indices)}
    found = np.full((len(place), PEOPLE, 17, 2), np.nan)
    for person, track in enumerate(tracks.tracks[:PEOPLE]):
        moments = [place[int(index)] for index in track.frame_indices]
        found[moments, person] = track.keypoints[..., :2]
    if len(tracks.tracks) == 1:
        found[:, 1] = found[:, 0]
    return found


def _interpolated(keypoints: Array) -> Array:
    """Fill what is NaN: straight lines over time, the nearest known value at both ends."""
    moments = np.arange(len(keypoints))
    flat = keypoints.reshape(len(keypoints), -1).copy()
    for column in flat.T:
        known = ~np.isnan(column)
        column[:] = np.interp(moments, moments[known], column[known]) if known.any() else 0.0
    return flat.reshape(keypoints.shape)


POSE_DIM = len(describe(np.zeros((2, PEOPLE, 17, 2)), 1.0))
"""E."""
