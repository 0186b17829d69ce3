"""Cutting and joining motions: speed, loops, one after the other, arms of one on the legs of
another, larger and smaller.

Axes: F moments, 17 keypoints; metres, y up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marey.synthetic.poses.body import CHILDREN, turn, unit

Array = NDArray[np.float64]

UPPER = list(range(11))
"""Head, shoulders, arms."""


def sample(joints: Array, fps: float, seconds: Array) -> Array:
    """Return the joints (T, 17, 3) at times, linearly between moments; the ends are held."""
    places = np.clip(seconds * fps, 0, len(joints) - 1)
    before = np.minimum(places.astype(int), max(len(joints) - 2, 0))
    fraction = (places - before)[:, None, None]
    after = np.minimum(before + 1, len(joints) - 1)
    return (1 - fraction) * joints[before] + fraction * joints[after]


def heading_of(joints: Array) -> Array:
    """Return where the hips face (...,): 0 looks along z."""
    left = joints[..., 11, :] - joints[..., 12, :]
    return np.arctan2(-left[..., 2], left[..., 0])


def placed(joints: Array, heading: float, ground: Array) -> Array:
    """Turn and shift a motion so that it starts with this heading over this point (2,) of the
    ground."""
    rotation = turn("y", np.array([heading - heading_of(joints[0])]))[0]
    hips = joints[0, 11:13].mean(0)
    shifted = (joints - hips * (1, 0, 1)) @ rotation.T
    return shifted + np.array([ground[0], 0, ground[1]])


def join(first: Array, second: Array, frames: int) -> Array:
    """Let one motion follow another, with so many moments between them in which one posture becomes
    the other."""
    end = first[-1]
    second = placed(second, float(heading_of(end)), end[11:13].mean(0)[[0, 2]])
    s = (np.arange(1, frames + 1) / (frames + 1))[:, None, None]
    s = s * s * (3 - 2 * s)
    between = keep_lengths((1 - s) * end + s * second[0], end)
    return np.concatenate([first, between, second])


def keep_lengths(joints: Array, like: Array) -> Array:
    """Give limbs (F, 17, 3) the lengths they have in `like` (17, 3); directions stay."""
    out = joints.copy()
    for start, end, _ in CHILDREN:
        length = np.linalg.norm(like[end] - like[start])
        out[:, end] = out[:, start] + length * unit(joints[:, end] - joints[:, start])
    return out


def exaggerate(joints: Array, factor: float) -> Array:
    """Make a motion larger or smaller: its difference from its mean posture times a factor, lengths
    kept."""
    hips = joints[:, 11:13].mean(1, keepdims=True)
    local = joints - hips
    mean = local.mean(0)
    changed = keep_lengths(mean + factor * (local - mean), local[0]) + hips
    changed[..., 1] += (joints[..., 1].min(1) - changed[..., 1].min(1))[:, None]
    return changed


def graft(upper: Array, lower: Array) -> Array:
    """Put head, trunk and arms of one motion on hips and legs of another; the shorter decides the
    length."""
    F = min(len(upper), len(lower))
    upper, lower = upper[:F], lower[:F]
    turned = turn("y", heading_of(lower) - heading_of(upper))
    above = np.einsum(
        "fij,fkj->fki", turned, upper[:, UPPER] - upper[:, 11:13].mean(1, keepdims=True)
    )
    out = lower.copy()
    out[:, UPPER] = above + lower[:, 11:13].mean(1, keepdims=True)
    return out


def go_round(joints: Array, fps: float, seconds: float) -> Array:
    """Repeat the cycle of a walk or run until the motion is long enough.

    The cycle is the pair of moments .45 to 1.4 seconds apart whose postures and speeds are most
    alike.
    """
    if len(joints) >= seconds * fps:
        return joints
    local = joints - joints[:, 11:13].mean(1, keepdims=True)
    local = np.einsum("fij,fkj->fki", turn("y", -heading_of(joints)), local)
    speed = np.gradient(local, axis=0) * fps * 0.15
    features = np.concatenate([local, speed], axis=1).reshape(len(local), -1)
    low, high = round(0.45 * fps), round(1.4 * fps)
    pairs = [
        (i, j)
        for i in range(2, len(joints) - low)
        for j in range(i + low, min(i + high, len(joints) - 2))
    ]
    if not pairs:
        return joints
    first, second = np.array(pairs).T
    best = int(np.linalg.norm(features[first] - features[second], axis=1).argmin())
    cycle = joints[first[best] : second[best]]
    out = joints[: second[best]]
    while len(out) < seconds * fps:
        step = placed(cycle, float(heading_of(out[-1])), out[-1, 11:13].mean(0)[[0, 2]])
        way = step[1, 11:13].mean(0) - step[0, 11:13].mean(0)
        out = np.concatenate([out, step + way * (1, 0, 1)])
    return out
