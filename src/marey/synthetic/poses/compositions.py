"""Actions that no recording shows, composed from joint limits: standing, gestures, strikes, and
what two people do.

Every function draws one motion: (joints (F, 17, 3) at `actor.FPS`, seconds at which the action
begins and ends). Ranges are those of a healthy adult's joints and usual paces; none was fitted to a
video.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses.actor import Actor, follow, sway

Array = NDArray[np.float64]

Composed = tuple[Array, float, float]


def stand(rng: Generator) -> Composed:
    """Stand, arms at rest in one of many ways, look round, shift the weight; small steps and small
    gestures."""
    actor = Actor(rng, 4)
    rest_arms(actor)
    if rng.random() < 0.3:  # shift or turn a little
        start = rng.uniform(0.5, 2.5)
        actor.path += follow(
            actor.times, [(start, (0, 0)), (start + 0.8, tuple(rng.normal(0, 0.12, 2)))]
        )
    if rng.random() < 0.3:
        start = rng.uniform(0.5, 2.5)
        actor.heading += follow(
            actor.times, [(start, 0), (start + rng.uniform(0.7, 1.5), rng.normal(0, 0.5))]
        )
    return actor.joints(), 0, 4


def rest_arms(actor: Actor) -> None:
    """Let the arms hang, or fold them, put them on the hips, into pockets, behind the back, or to
    the face."""
    rng = actor.rng
    kind = rng.choice(
        ["hang", "hips", "fold", "pockets", "behind", "front", "face", "talk"],
        p=[0.38, 0.1, 0.1, 0.1, 0.07, 0.1, 0.05, 0.1],
    )
    places = {
        "hips": ((0.35, -0.75, -0.02), (0.35, -0.75, -0.02)),
        "fold": ((-0.45, -0.4, 0.4), (-0.45, -0.36, 0.36)),
        "pockets": ((0.12, -0.85, 0.08), (0.12, -0.85, 0.08)),
        "behind": ((-0.25, -0.8, -0.3), (-0.25, -0.82, -0.3)),
        "front": ((-0.3, -0.75, 0.3), (-0.3, -0.75, 0.3)),
        "face": ((-0.15, 0.05, 0.35), None),
        "talk": ((0, -0.5, 0.45), (0, -0.55, 0.4)),
    }.get(str(kind), (None, None))
    one_sided = rng.random() < 0.35
    for side, place in enumerate(places if rng.random() < 0.5 else places[::-1]):
        if place is None or (one_sided and side == 0 and kind in ("hips", "pockets", "talk")):
            continue
        size = 0.1 if kind == "talk" else 0.015
        actor.hands[:, side] = (
            np.array(place) + rng.normal(0, 0.05, 3) + sway(rng, actor.times, size, 1.2, 3)
        )
        actor.elbow[:, side] = 0.8 if kind in ("hips", "fold") else 0.3


def approach(actor: Actor, until: float, chance: float = 0.6) -> None:
    """Walk up to where the action begins, in some of the motions."""
    rng = actor.rng
    if rng.random() < chance:
        distance = rng.uniform(0.2, 1.2)
        actor.go([(until - rng.uniform(0.6, 1.2) - 0.3 * distance, -distance), (until + 0.1, 0)])


def sides(rng: Generator) -> tuple[int, int]:
    """Draw which side acts, and return it with the other."""
    side = int(rng.random() < 0.7)  # most people are right-handed
    return side, 1 - side


def wave(rng: Generator) -> Composed:
    """Raise one hand or both and swing them, near the head or in wide arcs from the hips to above
    it, or signal with outstretched arms."""
    actor = Actor(rng, 4)
    rest_arms(actor)
    start, end = rng.uniform(0.2, 0.9), rng.uniform(2.6, 3.8)
    side, other = sides(rng)
    kind = rng.choice(["near", "arc", "signal"], p=[0.45, 0.25, 0.3])
    hertz = rng.uniform(0.5, 1.6)
    for hand in (side, other) if rng.random() < (0.6 if kind == "arc" else 0.35) else (side,):
        if kind == "arc":
            low, high = rng.uniform(-1.4, -0.3), rng.uniform(0.7, 1.5)
            turn = (low + high) / 2 + (high - low) / 2 * np.sin(2 * np.pi * hertz * actor.times)
            reach, ahead = rng.uniform(0.8, 0.98), rng.uniform(-0.05, 0.35)
            arc = np.stack(
                [reach * np.cos(turn), reach * np.sin(turn), np.full_like(turn, ahead)], axis=1
            )
            share = follow(actor.times, [(start, 0), (start + 0.4, 1), (end, 1), (end + 0.5, 0)])
            actor.hands[:, hand] += share[:, None] * (arc - actor.hands[:, hand])
            continue
        if kind == "signal":
            place = np.array(
                [rng.uniform(0.2, 0.95), rng.uniform(-0.1, 0.9), rng.uniform(-0.05, 0.5)]
            )
        else:
            place = np.array(
                [rng.uniform(0.0, 0.6), rng.uniform(0.15, 0.95), rng.uniform(0.0, 0.45)]
            )
        hertz, size = rng.uniform(0.8, 3.0), rng.uniform(0.1, 0.45)
        direction = np.array([1.0, rng.normal(0, 0.4), rng.normal(0, 0.4)])
        swing = (
            size * np.sin(2 * np.pi * hertz * actor.times + rng.uniform(0, 6))[:, None] * direction
        )
        raised = follow(
            actor.times, [(start, 0), (start + rng.uniform(0.25, 0.6), 1), (end, 1), (end + 0.5, 0)]
        )
        actor.hands[:, hand] += raised[:, None] * (place + swing - actor.hands[:, hand])
        actor.elbow[:, hand] = rng.uniform(0.1, 0.8)
    return actor.joints(), start, end + 0.2


def point(rng: Generator) -> Composed:
    """Stretch one arm out, hold it, let it fall."""
    actor = Actor(rng, 4)
    rest_arms(actor)
    side, _ = sides(rng)
    start = rng.uniform(0.3, 1.4)
    hold = start + rng.uniform(0.25, 0.6)
    end = hold + rng.uniform(0.4, 2.2)
    approach(actor, start, 0.2)
    azimuth, up = rng.normal(0.15, 0.5), rng.uniform(-0.35, 0.4)
    aim = np.array([np.sin(azimuth), up, np.cos(azimuth)])
    aim *= rng.uniform(0.88, 1.0) / np.linalg.norm(aim)
    trembling = aim + sway(rng, actor.times, 0.02, 1.5, 3)
    share = follow(actor.times, [(start, 0), (hold, 1), (end, 1), (end + rng.uniform(0.3, 0.6), 0)])
    actor.hands[:, side] += share[:, None] * (trembling - actor.hands[:, side])
    return actor.joints(), start, end + 0.2


def throw(rng: Generator) -> Composed:
    """Throw overhand, shoot with both hands from above the head, pass from the chest, or bounce a
    ball."""
    actor = Actor(rng, 4)
    side, other = sides(rng)
    kind = rng.choice(["overhand", "shoot", "bounce"], p=[0.4, 0.3, 0.3])
    start = rng.uniform(0.6, 1.4)
    if kind == "bounce":
        hertz, low = rng.uniform(1.4, 2.6), rng.uniform(-0.85, -0.65)
        swing = (
            np.array([0.0, rng.uniform(0.12, 0.28), 0.0])
            * np.sin(2 * np.pi * hertz * actor.times)[:, None]
        )
        actor.hands[:, side] = np.array([rng.uniform(0, 0.3), low, rng.uniform(0.2, 0.45)]) + swing
        actor.add("bend", [(0, rng.uniform(0.05, 0.5))])
        actor.rise = actor.rise - rng.uniform(0, 0.12)
        actor.go([(0, 0), (4, rng.uniform(0, 5) if rng.random() < 0.5 else 0)])
        return actor.joints(), 0, 4
    if kind == "shoot":
        away = start + rng.uniform(0.4, 0.8)
        for hand in (side, other):
            held, high, out = (-0.25, -0.35, 0.4), (-0.3, 0.35, 0.35), (-0.15, 0.85, 0.45)
            actor.pull_hand(
                hand,
                [(start, held), (away - 0.2, high), (away, out), (away + 0.4, out)],
                [(start - 0.4, 0), (start, 1), (away + 0.3, 1), (away + 0.8, 0)],
            )
        actor.rise += follow(
            actor.times, [(start, 0), (away - 0.3, -rng.uniform(0.05, 0.25)), (away, 0)]
        )
        height = rng.uniform(0, 0.35)
        actor.lift += follow(
            actor.times, [(away - 0.15, 0), (away + 0.05, height), (away + 0.3, 0)]
        )
        return actor.joints(), start, away + 0.4
    away = start + rng.uniform(0.35, 0.8)
    back = (0.35, rng.uniform(0.2, 0.6), -rng.uniform(0.2, 0.5))
    high = (0.15, rng.uniform(0.6, 0.9), 0.3)
    forward = (-0.2, rng.uniform(0.0, 0.4), 0.9)
    across = (-0.5, -0.6, 0.4)
    actor.pull_hand(
        side,
        [
            (start, back),
            (away - 0.15, back),
            (away - 0.05, high),
            (away + 0.05, forward),
            (away + 0.3, across),
        ],
        [(start - 0.2, 0), (away - 0.2, 1), (away + 0.3, 1), (away + 0.8, 0)],
    )
    sign = 1 if side == 0 else -1
    turn = rng.uniform(0.3, 0.9)
    actor.add(
        "twist",
        [(start, 0), (away - 0.2, sign * turn), (away + 0.15, -sign * turn), (away + 0.8, 0)],
    )
    actor.go([(start, 0), (away + 0.2, rng.uniform(0, 0.8))])
    return actor.joints(), start, away + 0.5


def shake_hands(rng: Generator) -> Composed:
    """Step up, reach out with one hand at the height of the waist, shake, let go."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.4, 1.3)
    approach(actor, start + 0.3, 0.6)
    side, _ = (1, 0) if rng.random() < 0.9 else (0, 1)
    hold, end = start + rng.uniform(0.3, 0.6), start + rng.uniform(1.4, 3.0)
    place = np.array([rng.uniform(-0.3, 0.05), rng.uniform(-0.75, -0.35), rng.uniform(0.5, 0.8)])
    hertz, size = rng.uniform(1.2, 3), rng.uniform(0.0, 0.1)
    shaking = place + size * np.sin(2 * np.pi * hertz * actor.times)[:, None] * (0, 1, 0.1)
    share = follow(actor.times, [(start, 0), (hold, 1), (end, 1), (end + rng.uniform(0.3, 0.6), 0)])
    actor.hands[:, side] += share[:, None] * (shaking - actor.hands[:, side])
    actor.add(
        "bend",
        [(start, 0), (hold, rng.uniform(0, 0.35)), (end, rng.uniform(0, 0.2)), (end + 0.5, 0)],
    )
    return actor.joints(), start, end + 0.2


def hug(rng: Generator) -> Composed:
    """Walk up to somebody and close both arms around them."""
    actor = Actor(rng, 4)
    start = rng.uniform(0.3, 1.0)
    approach(actor, start + 0.4, 0.8)
    hold, end = start + rng.uniform(0.4, 0.8), start + rng.uniform(2.0, 3.4)
    for side in range(2):
        up = rng.uniform(-0.55, 0.2)
        wide = (0.3, up, 0.6)
        closed = (rng.uniform(-0.75, -0.3), up + rng.normal(0, 0.08), rng.uniform(0.45, 0.7))
        actor.pull_hand(
            side,
            [(start, wide), (start + 0.2, wide), (hold, closed), (end, closed), (end + 0.3, wide)],
            [(start, 0), (start + 0.3, 1), (end, 1), (end + 0.5, 0)],
        )
        actor.elbow[:, side] = rng.uniform(0.4, 0.9)
    actor.add(
        "bend",
        [(start, 0), (hold, rng.uniform(0.0, 0.45)), (end, rng.uniform(0, 0.3)), (end + 0.4, 0)],
    )
    actor.add("twist", [(hold, 0), (end, rng.normal(0, 0.2))])
    return actor.joints(), start + 0.1, end + 0.2
