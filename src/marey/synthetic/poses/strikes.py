"""Composed strikes: pushing, punching, kicking, and fights, which are several of them.

As in `compositions`, every function draws one motion: (joints (F, 17, 3) at `actor.FPS`, begin and
end in seconds).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from marey.synthetic.poses.actor import Actor, follow, sway
from marey.synthetic.poses.body import LEG
from marey.synthetic.poses.compositions import Composed, approach, sides


def push(rng: Generator) -> Composed:
    """Shove with both hands from the chest, stepping or leaning into it."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.7, 1.6)
    approach(actor, start, 0.75)
    draw, out = start + rng.uniform(0.15, 0.4), rng.uniform(0.15, 0.35)
    hold = draw + out + rng.uniform(0.0, 0.6)
    height = rng.uniform(-0.4, 0.15)
    for side in range(2):
        near = (rng.uniform(-0.2, 0.15), height + rng.normal(-0.15, 0.08), rng.uniform(0.25, 0.5))
        far = (rng.uniform(-0.2, 0.1), height + rng.normal(0, 0.06), rng.uniform(0.78, 0.98))
        actor.pull_hand(
            side,
            [(start, near), (draw, near), (draw + out, far), (hold, far)],
            [(start - 0.15, 0), (draw, 1), (hold, 1), (hold + rng.uniform(0.3, 0.6), 0)],
        )
        actor.elbow[:, side] = rng.uniform(0.1, 0.7)
    lean = rng.uniform(0.05, 0.55)
    actor.add("bend", [(start, 0), (draw, -0.05), (draw + out, lean), (hold + 0.4, 0)])
    actor.go([(draw - 0.1, 0), (draw + out + 0.15, rng.uniform(0, 0.6))])
    return actor.joints(), start, hold + 0.2


def strike(actor: Actor, side: int, at: float) -> float:
    """Let a fist fly out at a moment and come back; returns when it is back."""
    rng = actor.rng
    out, stay = rng.uniform(0.1, 0.24), rng.uniform(0.0, 0.15)
    back = rng.uniform(0.2, 0.45)
    sign = 1 if side == 0 else -1
    kind = rng.choice(["straight", "hook", "swing"], p=[0.55, 0.25, 0.2])
    low = np.array([rng.uniform(-0.1, 0.25), rng.uniform(-0.45, 0.05), rng.uniform(0.15, 0.45)])
    wound = {
        "straight": low,
        "hook": np.array([0.55, -0.1, 0.1]),
        "swing": np.array([0.5, 0.1, -0.35]),
    }[str(kind)]
    aim = np.array([rng.uniform(-0.35, 0.05), rng.uniform(-0.3, 0.35), 1.0])
    aim *= rng.uniform(0.82, 1.0) / np.linalg.norm(aim)
    actor.pull_hand(
        side,
        [
            (at - 0.2, tuple(wound)),
            (at, tuple(wound)),
            (at + out, tuple(aim)),
            (at + out + stay, tuple(aim)),
            (at + out + stay + back, tuple(low)),
        ],
        [
            (at - rng.uniform(0.25, 0.45), 0),
            (at, 1),
            (at + out + stay, 1),
            (at + out + stay + back, 0),
        ],
    )
    actor.elbow[:, side] = rng.uniform(0.2, 0.9)
    turn = rng.uniform(0.1, 0.8)
    actor.add(
        "twist",
        [(at - 0.25, 0), (at, -sign * -0.4 * turn), (at + out, -sign * turn), (at + out + 0.4, 0)],
    )
    actor.add("bend", [(at - 0.1, 0), (at + out, rng.uniform(0, 0.35)), (at + out + 0.4, 0)])
    return at + out + stay + back


def punch(rng: Generator) -> Composed:
    """Strike with a fist once or twice, from a guard or from hanging arms, stepping in."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.8, 1.8)
    approach(actor, start, 0.7)
    guarded = rng.random() < 0.4
    if guarded:
        raise_guard(actor, 0.0, 4.0)
    side, other = sides(rng)
    end = strike(actor, side, start)
    if rng.random() < 0.35:
        end = strike(actor, other if rng.random() < 0.7 else side, end - rng.uniform(0, 0.15))
    actor.go(
        [(start - 0.25, 0), (start + 0.2, rng.uniform(0, 0.5)), (end + 0.3, rng.uniform(-0.2, 0.4))]
    )
    return actor.joints(), start - 0.1, end


def raise_guard(actor: Actor, start: float, end: float) -> None:
    """Hold the fists before chest or face."""
    rng = actor.rng
    for side in range(2):
        place = (rng.uniform(-0.3, 0.1), rng.uniform(-0.3, 0.2), rng.uniform(0.3, 0.65))
        actor.pull_hand(
            side, [(start, place)], [(start - 0.4, 0), (start, 1), (end, 1), (end + 0.4, 0)]
        )
        actor.hands[:, side] += sway(rng, actor.times, 0.03, 1.5, 3)
    actor.stance = np.array([rng.uniform(0.1, 0.2), rng.choice([-1, 1]) * rng.uniform(0.05, 0.2)])
    actor.rise = actor.rise - rng.uniform(0, 0.08)


def kick(rng: Generator) -> Composed:
    """Swing a leg at something: straight, round, or low as at a ball, and set it down again."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.8, 1.8)
    approach(actor, start, 0.7)
    if rng.random() < 0.25:
        raise_guard(actor, 0.0, 4.0)
    end = swing_leg(actor, sides(rng)[0], start)
    actor.go(
        [(start - 0.2, 0), (start + 0.2, rng.uniform(-0.05, 0.25)), (end, rng.uniform(-0.2, 0.5))]
    )
    return actor.joints(), start, end


def swing_leg(actor: Actor, side: int, at: float) -> float:
    """Let a foot fly up at a moment and come back; returns when it stands."""
    rng = actor.rng
    sign = 1.0 if side == 0 else -1.0
    rise, out = rng.uniform(0.12, 0.35), rng.uniform(0.1, 0.25)
    stay, back = rng.uniform(0.0, 0.2), rng.uniform(0.25, 0.55)
    height = rng.uniform(0.2, 1.25)
    azimuth = sign * (rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(-0.8, 0.9))
    flat = np.sqrt(max((rng.uniform(0.88, 1.0) * LEG) ** 2 - (0.92 - height) ** 2, 0.1))
    if rng.random() < 0.65:  # the knee comes up first
        chamber = (sign * 0.1, rng.uniform(0.25, 0.65) * max(height, 0.5), rng.uniform(-0.2, 0.25))
    else:  # a straight leg swings
        chamber = (sign * 0.1, rng.uniform(0.15, 0.35), -rng.uniform(0.15, 0.5))
    extended = (np.sin(azimuth) * flat, height, np.cos(azimuth) * flat)
    ground = (sign * 0.1, 0.08, rng.uniform(-0.1, 0.3))
    moments = np.cumsum([at, rise, out, stay, back])
    places = [ground, chamber, extended, extended, ground]
    path = follow(actor.times, list(zip(moments.tolist(), places, strict=True)))
    share = follow(
        actor.times,
        [(at - 0.05, 0), (at + rise * 0.6, 1), (moments[3] + back * 0.6, 1), (moments[4], 0)],
    )
    actor.foot_targets[side] = (share, path)

    tilt = rng.uniform(0.0, 0.25 + 0.35 * height)
    actor.add(
        "bend",
        [(at, 0), (at + rise, rng.uniform(-0.1, 0.15)), (moments[2], -tilt), (moments[4], 0)],
    )
    actor.add("pelvis_pitch", [(at, 0), (moments[2], -rng.uniform(0.1, 0.5)), (moments[4], 0)])
    actor.add("lean", [(at, 0), (moments[2], sign * rng.uniform(-0.05, 0.4)), (moments[4], 0)])
    for hand in range(2):
        away = rng.normal(0, 0.25, 3) + np.array([rng.uniform(0, 0.4), rng.uniform(0, 0.5), 0])
        actor.hands[:, hand] += follow(
            actor.times, [(at, (0, 0, 0)), (moments[2], tuple(away)), (moments[4] + 0.2, (0, 0, 0))]
        )
    return float(moments[4])


def fight(rng: Generator) -> Composed:
    """Several strikes, kicks, shoves and pulls in a row, stepping to and fro."""
    actor = Actor(rng, 4)
    if rng.random() < 0.5:
        raise_guard(actor, 0.0, 4.0)
    at, travel = rng.uniform(0.1, 0.5), [(0.0, 0.0)]
    kicked = False
    while at < 3.5:
        move = rng.choice(["strike", "grab", "duck", "kick"], p=[0.5, 0.22, 0.13, 0.15])
        if move == "strike" or (move == "kick" and kicked):
            at = strike(actor, int(rng.random() < 0.5), at) - rng.uniform(0.05, 0.2)
        elif move == "kick":
            at, kicked = swing_leg(actor, int(rng.random() < 0.5), at), True
        elif move == "grab":
            until = at + rng.uniform(0.4, 1.0)
            for side in range(2):
                place = np.array([-0.1, rng.uniform(-0.5, 0.1), rng.uniform(0.55, 0.8)])
                moving = place + sway(rng, actor.times, 0.12, 2.0, 3)
                share = follow(
                    actor.times, [(at - 0.1, 0), (at + 0.15, 1), (until, 1), (until + 0.25, 0)]
                )
                actor.hands[:, side] += share[:, None] * (moving - actor.hands[:, side])
            at = until
        else:
            actor.add("bend", [(at, 0), (at + 0.25, rng.uniform(0.3, 0.9)), (at + 0.7, 0)])
            at += rng.uniform(0.4, 0.7)
        travel.append((at, travel[-1][1] + rng.normal(0, 0.35)))
    actor.go(travel)
    actor.curves["bend"] += rng.uniform(0, 0.3) + sway(rng, actor.times, 0.12, 1.2)
    actor.curves["twist"] += sway(rng, actor.times, 0.25, 1.2)
    actor.heading += sway(rng, actor.times, 0.25, 0.8)
    return actor.joints(), 0, 4
