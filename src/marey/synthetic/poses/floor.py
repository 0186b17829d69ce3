"""Composed motions on and to the ground: falling, lying, getting up, crawling.

As in `compositions`, every function draws one motion: (joints (F, 17, 3) at `actor.FPS`, begin and
end in seconds).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses.actor import FPS, Actor, follow, smooth, sway
from marey.synthetic.poses.body import HIP_HEIGHT
from marey.synthetic.poses.compositions import Composed, approach, rest_arms

Array = NDArray[np.float64]


def fall(rng: Generator) -> Composed:
    """Topple to any side while knees and hips give way, then lie; or only lie there, moving a
    little."""
    actor = Actor(rng, 4)
    rest_arms(actor)
    start = rng.uniform(0.4, 1.5)
    seconds = rng.uniform(0.5, 1.1)
    crumple = rng.uniform(0.0, 0.6)
    give = follow(actor.times, [(start, 0), (start + seconds * 0.7, 1)])
    actor.rise = actor.rise - give * crumple
    actor.curves["bend"] += give * rng.uniform(-0.3, 0.7)
    actor.curves["pelvis_pitch"] += give * rng.uniform(-0.1, 0.4)
    approach(actor, start, 0.4)
    for side in range(2):
        flung = rng.normal(0, 0.35, 3) + np.array([0.4, -0.1, 0.4])
        actor.hands[:, side] += give[:, None] * (flung - actor.hands[:, side])
    joints = topple(
        actor.joints(),
        actor.times,
        start,
        seconds,
        rng.uniform(0, 2 * np.pi),
        rng.uniform(1.35, 1.6),
    )
    if rng.random() < 0.25:  # only lying
        still = joints[round((start + seconds) * FPS) :]
        places = np.minimum(np.arange(len(joints)) // 3, len(still) - 1)
        return still[places] + sway(rng, actor.times, 0.012, 0.5, 51).reshape(-1, 17, 3), 0, 4
    return joints, start, start + seconds + 1.0


def topple(
    joints: Array, times: Array, start: float, seconds: float, direction: float, angle: float
) -> Array:
    """Turn a body about the ground under its feet, faster and faster, and lay it down.

    Args:
        joints: (F, 17, 3).
        direction: where it falls to, as a heading.
        angle: how far it turns; pi / 2 lies flat.
    """
    share = np.clip((times - start) / seconds, 0, 1)
    turned = angle * share**2.2
    foot = joints[:, 15:17].mean(1)
    foot[:, 1] = 0
    axis = np.array([np.cos(direction), 0.0, -np.sin(direction)])  # level, across the fall
    seen = joints - foot[:, None]
    c, s = np.cos(turned)[:, None, None], np.sin(turned)[:, None, None]
    along = (seen * axis).sum(-1, keepdims=True) * axis
    out = (
        c * seen
        + s * np.cross(np.broadcast_to(axis, seen.shape), seen)
        + (1 - c) * along
        + foot[:, None]
    )
    out[..., 1] = np.maximum(out[..., 1], 0.06)  # nothing sinks into the ground
    return out


def get_up(rng: Generator) -> Composed:
    """The reverse of a fall, slower, mostly to one side and over a crouch."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.5, 1.2)
    seconds = rng.uniform(1.2, 2.2)
    crouch = follow(actor.times, [(start, 0), (start + seconds * 0.5, 1), (start + seconds, 0.6)])
    actor.rise = actor.rise - crouch * rng.uniform(0.25, 0.6)
    actor.curves["bend"] += crouch * rng.uniform(0.2, 1.0)
    actor.curves["pelvis_pitch"] += crouch * rng.uniform(0.1, 0.5)
    for side in range(2):
        support = np.array([rng.uniform(0, 0.5), -0.7, rng.uniform(-0.2, 0.6)])
        actor.hands[:, side] += crouch[:, None] * (support - actor.hands[:, side])
    joints = topple(
        actor.joints(),
        actor.times,
        start,
        seconds,
        rng.uniform(0, 2 * np.pi),
        rng.uniform(1.35, 1.6),
    )
    return smooth(joints, 5)[::-1].copy(), 4 - start - seconds, 4 - start


def crawl(rng: Generator) -> Composed:
    """Crawl on hands and knees."""
    actor = Actor(rng, 4)
    F = len(actor.times)
    speed, hertz = rng.uniform(0.15, 0.7), rng.uniform(0.6, 1.3)
    actor.go([(0, 0), (4, 4 * speed)])
    hip_height = rng.uniform(0.38, 0.48)
    actor.rise = np.full(F, hip_height - HIP_HEIGHT) + sway(rng, actor.times, 0.015, 1)
    actor.curves["bend"] = np.full(F, rng.uniform(1.3, 1.65)) + sway(rng, actor.times, 0.05, 1)
    actor.curves["pelvis_pitch"] = actor.curves["bend"] - 0.1
    actor.curves["nod"] = np.full(F, rng.uniform(0.2, 1.2)) + sway(rng, actor.times, 0.1, 0.7)
    phase = 2 * np.pi * hertz * actor.times + rng.uniform(0, 6)
    stride = speed / hertz / 2
    for side, sign in enumerate((1.0, -1.0)):
        turn = phase + (0 if side == 0 else np.pi)
        behind = -rng.uniform(0.36, 0.42) + stride * np.cos(turn) * 0.5
        up = 0.08 + 0.05 * np.maximum(np.sin(turn), 0)
        actor.foot_targets[side] = (
            np.ones(F),
            np.stack([np.full(F, sign * 0.1), up, behind], axis=1),
        )
        actor.hands[:, side, 0] = 0.05
        actor.hands[:, side, 1] = -0.15 + 0.5 * stride * np.cos(
            turn + np.pi
        )  # along the trunk is forward here
        actor.hands[:, side, 2] = 0.85 - 0.12 * np.maximum(np.sin(turn + np.pi), 0)
    actor.swinging_arms = 0
    return actor.joints(), 0, 4
