"""Composed motions of the whole body: bending, sitting, falling, lying, getting up, crawling,
jumping; and nothing known.

As in `compositions`, every function draws one motion: (joints (F, 17, 3) at `actor.FPS`, begin and
end in seconds).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses.actor import FPS, Actor, follow, sway
from marey.synthetic.poses.body import ANKLE, HIP_HEIGHT
from marey.synthetic.poses.compositions import Composed, approach, rest_arms

Array = NDArray[np.float64]


def bend(rng: Generator) -> Composed:
    """Bend forward towards the ground with more or less bent knees, and up again in most
    motions."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.2, 1.2)
    approach(actor, start, 0.25)
    down = start + rng.uniform(0.4, 1.1)
    hold = down + rng.uniform(0.0, 1.6)
    up = hold + rng.uniform(0.4, 1.1)
    angle = rng.uniform(0.85, 1.9)
    keys = [(start, 0.0), (down, 1.0), (hold, 1.0), (up, 0.0 if rng.random() < 0.85 else 1.0)]
    share = follow(actor.times, keys)
    crouch = rng.uniform(0.0, 0.5) * (rng.random() < 0.7)
    actor.curves["bend"] += share * angle
    actor.curves["pelvis_pitch"] += share * angle * rng.uniform(0.5, 0.8)
    actor.curves["nod"] += share * rng.uniform(0.2, 1.2)
    actor.rise = actor.rise - share * crouch
    actor.path -= (share * rng.uniform(0.05, 0.2))[:, None] * [
        np.sin(actor.heading[0]),
        np.cos(actor.heading[0]),
    ]
    actor.stance[1] = 0.0
    reach = rng.uniform(0.55, 0.98)
    for side in range(2):
        # seen from a bent trunk the ground lies forward: rotate "down" by the angle
        towards = np.array([rng.uniform(-0.2, 0.15), -np.cos(angle), np.sin(angle)]) * reach
        towards += rng.normal(0, 0.08, 3)
        if side == 0 or rng.random() < 0.7:
            actor.hands[:, side] += share[:, None] * (towards - actor.hands[:, side])
            actor.hands[:, side] += share[:, None] * sway(
                rng, actor.times, rng.uniform(0, 0.06), 1.5, 3
            )
    return actor.joints(), start, up


def sit(rng: Generator) -> Composed:
    """Sit down on a seat, or sit there the whole time; arms on the lap, on a table, or folded."""
    actor = Actor(rng, 4)
    rest_arms(actor)
    seated_already = rng.random() < 0.65
    start = -2.0 if seated_already else rng.uniform(0.3, 1.4)
    down = start + rng.uniform(0.7, 1.4)
    share = follow(actor.times, [(start, 0.0), (down, 1.0)])
    seat = rng.uniform(0.32, 0.55)
    seat_on(actor, share, seat)
    leaning = follow(
        actor.times, [(start, 0), ((start + down) / 2, rng.uniform(0.3, 0.8)), (down + 0.3, 0)]
    )
    actor.curves["bend"] += leaning + share * rng.uniform(-0.3, 0.35)
    for side in range(2):
        lap = np.array([rng.uniform(-0.35, 0.1), rng.uniform(-0.75, -0.4), rng.uniform(0.3, 0.7)])
        if rng.random() < 0.8:
            actor.hands[:, side] += share[:, None] * (lap - actor.hands[:, side])
            actor.hands[:, side] += share[:, None] * sway(
                rng, actor.times, rng.uniform(0, 0.05), 1.2, 3
            )
    return actor.joints(), max(start, 0), 4


def seat_on(actor: Actor, share: Array, seat: float) -> None:
    """Lower the hips onto a seat behind the feet, as far as `share` in [0, 1] says."""
    rng = actor.rng
    back = rng.uniform(0.3, 0.5)
    forward = np.array([np.sin(actor.heading[0]), np.cos(actor.heading[0])])
    feet = actor.path.copy()
    actor.path = actor.path - share[:, None] * back * forward
    actor.rise = actor.rise - share * (HIP_HEIGHT - seat)
    spread = rng.uniform(0.07, 0.25)
    for side, sign in enumerate((1.0, -1.0)):
        stay = ((feet - actor.path) * forward).sum(1) + rng.uniform(-0.15, 0.2) * share
        place = np.stack(
            [np.full(len(share), sign * spread), np.full(len(share), ANKLE), stay], axis=1
        )
        actor.foot_targets[side] = (np.clip(share * 3, 0, 1), place)
    actor.knee += share[:, None] * rng.uniform(-0.1, 0.5)


def rise_from_seat(rng: Generator) -> Composed:
    """Stand up from a seat."""
    joints, _, _ = sit_down_only(rng)
    return joints[::-1].copy(), 0.4, 3.0


def sit_down_only(rng: Generator) -> Composed:
    """Sit down in the second half of the motion."""
    actor = Actor(rng, 4)
    start = rng.uniform(1.2, 1.8)
    share = follow(actor.times, [(start, 0.0), (start + rng.uniform(0.7, 1.3), 1.0)])
    seat_on(actor, share, rng.uniform(0.32, 0.55))
    actor.add(
        "bend",
        [(start, 0), (start + 0.5, rng.uniform(0.3, 0.9)), (start + 1.2, rng.uniform(0, 0.3))],
    )
    for side in range(2):
        lap = np.array([rng.uniform(-0.3, 0.1), rng.uniform(-0.75, -0.5), rng.uniform(0.2, 0.6)])
        actor.hands[:, side] += share[:, None] * (lap - actor.hands[:, side])
    return actor.joints(), start, 4


def jump(rng: Generator) -> Composed:
    """Crouch, take off, land: once or again and again, on the spot or forward, arms thrown up or
    not."""
    actor = Actor(rng, 4)
    at, number = rng.uniform(0.3, 1.0), 0
    repeat = rng.random() < 0.5
    hops = repeat and rng.random() < 0.6  # small and quick, as with a rope, or over the ground
    arms_up = rng.uniform(0.0, 1.0) * (rng.random() < (0.3 if hops else 0.7))
    forward = rng.uniform(0, 0.9) * (rng.random() < 0.4)
    heights = (0.06, 0.3) if hops else (0.12, 0.5)
    loads = (0.15, 0.3) if hops else (0.25, 0.5)
    while at < 3.0 and (repeat or number == 0):
        height = rng.uniform(*heights)
        flight = 2 * np.sqrt(2 * height / 9.81)
        load = rng.uniform(*loads)
        take_off = at + load
        s = np.clip((actor.times - take_off) / flight, 0, 1)
        actor.lift += 4 * height * s * (1 - s)
        crouch = rng.uniform(0.03, 0.15) if hops else rng.uniform(0.1, 0.4)
        actor.rise = actor.rise + follow(
            actor.times,
            [
                (at, 0),
                (take_off - 0.12, -crouch),
                (take_off, 0),
                (take_off + flight, -0.05),
                (take_off + flight + 0.15, -crouch),
                (take_off + flight + 0.5, 0),
            ],
        )
        actor.add(
            "bend",
            [
                (at, 0),
                (take_off - 0.12, crouch * 1.5),
                (take_off, 0),
                (take_off + flight + 0.15, crouch),
                (take_off + flight + 0.5, 0),
            ],
        )
        for side in range(2):
            up = np.array([0.1, arms_up * rng.uniform(0.8, 1.2), 0.25])
            down = np.array([0.15, -0.9, -0.3])
            path = follow(
                actor.times,
                [
                    (at, tuple(down)),
                    (take_off - 0.1, tuple(down)),
                    (take_off + 0.1, tuple(up)),
                    (take_off + flight, tuple(down)),
                ],
            )
            share = arms_up * follow(
                actor.times,
                [
                    (at, 0),
                    (take_off - 0.1, 1),
                    (take_off + flight, 1),
                    (take_off + flight + 0.3, 0),
                ],
            )
            actor.hands[:, side] += share[:, None] * (path - actor.hands[:, side])
        actor.go([(take_off, 0), (take_off + flight, forward)])
        at = take_off + flight + (rng.uniform(0.0, 0.15) if hops else rng.uniform(0.05, 0.6))
        number += 1
    return actor.joints(), 0.2, min(at, 4)


def anything(rng: Generator) -> Composed:
    """Move hands, trunk and feet along random curves within joint limits: what no name of the
    vocabulary means."""
    actor = Actor(rng, 4)
    hertz = rng.uniform(0.5, 2.5)
    busy = [True, True] if rng.random() < 0.6 else list(rng.permutation([True, False]))
    together = rng.random() < 0.4
    shared = sway(rng, actor.times, rng.uniform(0.05, 0.25), hertz, 3)
    for side in range(2):
        if busy[side]:
            place = np.array(
                [rng.uniform(-0.4, 0.5), rng.uniform(-0.8, 0.6), rng.uniform(-0.1, 0.8)]
            )
            own = sway(rng, actor.times, rng.uniform(0.05, 0.35), hertz, 3)
            actor.hands[:, side] = place + (shared if together else own)
            actor.elbow[:, side] = rng.uniform(0, 1)
    if rng.random() < 0.5:
        for name in ("bend", "twist", "lean", "look"):
            actor.curves[name] = actor.curves[name] + sway(
                rng, actor.times, rng.uniform(0, 0.5), hertz / 2
            )
        actor.rise = actor.rise - np.abs(sway(rng, actor.times, rng.uniform(0, 0.25), hertz / 2))
    if rng.random() < 0.3:
        side = int(rng.random() < 0.5)
        place = np.array([0.1, 0.25, 0.2]) + sway(rng, actor.times, 0.2, hertz, 3)
        share = np.clip(sway(rng, actor.times, 0.7, hertz / 2), 0, 1)
        actor.foot_targets[side] = (share, place * (1 if side == 0 else -1, 1, 1))
    if rng.random() < 0.4:
        actor.path += np.cumsum(sway(rng, actor.times, rng.uniform(0.1, 1.0), 0.6, 2), axis=0) / FPS
        actor.heading += sway(rng, actor.times, rng.uniform(0, 1.0), 0.5)
    if rng.random() < 0.2:
        seat_on(actor, np.ones(len(actor.times)), rng.uniform(0.1, 0.6))
    return actor.joints(), 0, 4


def react(rng: Generator) -> Composed:
    """Be hit or pushed: bend away, throw up the arms, step back."""
    actor = Actor(rng, 4)
    rest_arms(actor)
    start = rng.uniform(0.5, 1.5)
    back = start + rng.uniform(0.15, 0.4)
    end = back + rng.uniform(0.4, 1.2)
    bent = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.9)
    actor.add("bend", [(start, 0), (back, bent), (end, 0.2 * bent)])
    actor.add("lean", [(start, 0), (back, rng.normal(0, 0.2)), (end, 0)])
    actor.add("twist", [(start, 0), (back, rng.normal(0, 0.4)), (end, 0)])
    actor.go([(start, 0), (end, -rng.uniform(0.1, 1.3))])
    for side in range(2):
        thrown = rng.normal(0, 0.3, 3) + np.array([0.2, 0.2, 0.2])
        actor.hands[:, side] += follow(
            actor.times, [(start, (0, 0, 0)), (back, tuple(thrown)), (end, (0, 0, 0))]
        )
    return actor.joints(), start, end
