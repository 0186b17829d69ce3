"""A composed motion in the making: a standing body that steps, sways and follows curves within
joint limits.

Axes: F moments at `FPS`, 2 sides (left, right). Metres, radians, seconds; y points up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses.body import ANKLE, ARM, HIP_HEIGHT, LEG, Posture

Array = NDArray[np.float64]

FPS = 30.0
"""Moments per second of a composed motion."""

STEP_ERROR = 0.14
"""A foot steps once it is so far from where it should stand."""

Keys = Sequence[tuple[float, float | Sequence[float]]]
"""(seconds, value) pairs in time order."""


def follow(times: Array, keys: Keys) -> Array:
    """Go from key to key along minimum-jerk curves, 10 s^3 - 15 s^4 + 6 s^5; the ends are held.

    Args:
        times: (F,), seconds.
        keys: values are numbers or vectors (n,).

    Returns:
        (F,) or (F, n).
    """
    at = np.array([seconds for seconds, _ in keys])
    values = np.array([value for _, value in keys], float)
    if len(keys) == 1:
        return np.broadcast_to(values[0], (len(times), *values.shape[1:])).copy()
    before = np.clip(np.searchsorted(at, times, side="right") - 1, 0, len(at) - 2)
    s = np.clip((times - at[before]) / np.maximum(at[before + 1] - at[before], 1e-3), 0, 1)
    s = s**3 * (10 - 15 * s + 6 * s**2)
    s = s.reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - s) + values[before + 1] * s


def sway(
    rng: Generator, times: Array, size: float, hertz: float = 0.6, width: int | None = None
) -> Array:
    """Draw a smooth random curve of about zero mean: five sines below a frequency.

    Args:
        size: standard deviation.
        width: number of curves; None gives one, (F,).

    Returns:
        (F,) or (F, width).
    """
    count = width or 1
    frequency = rng.uniform(0.05, hertz, (5, count))
    phase = rng.uniform(0, 2 * np.pi, (5, count))
    weight = rng.uniform(0.3, 1, (5, count))
    weight *= size / np.sqrt((weight**2).sum(0) / 2)
    curve = (weight * np.sin(2 * np.pi * frequency * times[:, None, None] + phase)).sum(1)
    return curve if width else curve[:, 0]


@dataclass
class Actor:
    """A body whose curves a composition changes before `joints` places it.

    Args:
        rng: where chance comes from.
        seconds: length of the motion.
    """

    rng: Generator
    seconds: float
    times: Array = field(init=False)
    path: Array = field(init=False)
    """(F, 2), where the middle of the hips should be over the ground: x, z."""
    heading: Array = field(init=False)
    rise: Array = field(init=False)
    """(F,), hips above standing height; negative in a crouch."""
    lift: Array = field(init=False)
    """(F,), the whole body off the ground, as in a jump."""
    curves: dict[str, Array] = field(init=False)
    """pelvis_pitch, bend, lean, twist, nod, look: (F,)."""
    hands: Array = field(init=False)
    elbow: Array = field(init=False)
    knee: Array = field(init=False)
    swinging_arms: float = 1.0
    """How far arms swing against the legs."""
    foot_targets: dict[int, tuple[Array, Array]] = field(default_factory=dict)
    """Side -> (share (F,) in [0, 1], place (F, 3) seen from the hips' ground point and heading):
    pulls a foot away."""

    def __post_init__(self) -> None:
        rng = self.rng
        self.times = np.arange(round(self.seconds * FPS)) / FPS
        F = len(self.times)
        self.path = sway(rng, self.times, rng.uniform(0, 0.025), 0.4, 2)
        self.heading = sway(rng, self.times, rng.uniform(0, 0.06), 0.3)
        self.rise = sway(rng, self.times, 0.004) - abs(rng.normal(0, 0.02))
        self.lift = np.zeros(F)
        names = ("pelvis_pitch", "bend", "lean", "twist", "nod", "look")
        sizes = (0.02, 0.03, 0.02, 0.05, 0.08, 0.25)
        offsets = (0.03, 0.08, 0.03, 0.08, 0.15, 0.3)
        self.curves = {
            name: sway(rng, self.times, size * rng.uniform(0.2, 1.5)) + rng.normal(0, offset)
            for name, size, offset in zip(names, sizes, offsets, strict=True)
        }
        self.curves["bend"] += 0.05
        self.hands = np.zeros((F, 2, 3))
        for side in range(2):
            self.hands[:, side] = hanging(rng) + sway(
                rng, self.times, rng.uniform(0.005, 0.03), 0.8, 3
            )
        self.elbow = np.full((F, 2), rng.uniform(0, 0.4))
        self.knee = np.full((F, 2), rng.uniform(0, 0.3))
        self.stance = np.array([rng.uniform(0.07, 0.18), rng.uniform(-0.12, 0.12)])
        self.feet_turn = rng.normal(0, 0.1)

    def pull_hand(self, side: int, keys: Keys, share: Keys) -> None:
        """Move a hand along a path, as far as `share` in [0, 1] says; elsewhere it does what it
        did."""
        weight = follow(self.times, share)[:, None]
        self.hands[:, side] = (1 - weight) * self.hands[:, side] + weight * follow(self.times, keys)

    def add(self, name: str, keys: Keys) -> None:
        """Add a curve to "pelvis_pitch", "bend", "lean", "twist", "nod" or "look"."""
        self.curves[name] = self.curves[name] + follow(self.times, keys)

    def go(self, keys: Keys) -> None:
        """Move forward along the heading at the start by so many metres."""
        forward = np.array([np.sin(self.heading[0]), np.cos(self.heading[0])])
        self.path = self.path + follow(self.times, keys)[:, None] * forward

    def joints(self) -> Array:
        """Return the joints (F, 17, 3)."""
        feet = self.step()
        ground = np.stack([self.path[:, 0], np.zeros_like(self.heading), self.path[:, 1]], axis=1)
        c, s = np.cos(self.heading), np.sin(self.heading)
        for side, (share, place) in self.foot_targets.items():
            turned = np.stack(
                [
                    c * place[:, 0] + s * place[:, 2],
                    place[:, 1],
                    -s * place[:, 0] + c * place[:, 2],
                ],
                axis=1,
            )
            feet[:, side] += share[:, None] * (ground + turned - feet[:, side])

        # hips no higher than a planted leg reaches
        planted = np.stack(
            [
                1 - self.foot_targets[side][0] if side in self.foot_targets else np.ones(len(c))
                for side in range(2)
            ],
            axis=1,
        )
        apart = np.linalg.norm((feet - ground[:, None])[..., [0, 2]], axis=-1) * planted
        reach = (
            np.sqrt(np.maximum((0.995 * LEG) ** 2 - np.maximum(apart - 0.09, 0) ** 2, 0.05)).min(1)
            + ANKLE
        )
        height = np.minimum(HIP_HEIGHT + self.rise, smooth(reach, 5))
        hips = ground + np.stack([0 * c, height + self.lift, 0 * c], axis=1)
        feet[..., 1] += self.lift[:, None]

        forward = np.stack([s, 0 * s, c], axis=1)
        ahead = ((feet - hips[:, None]) * forward[:, None]).sum(-1)
        hands = self.hands.copy()
        free = np.clip(-hands[..., 1] - 0.3, 0, 0.6) / 0.6  # hanging arms swing
        hands[..., 2] += (
            self.swinging_arms * free * 0.6 * (ahead[:, ::-1] - ahead.mean(1, keepdims=True)) / ARM
        )
        posture = Posture(
            hips=hips,
            heading=self.heading,
            feet=feet,
            hands=hands,
            elbow=self.elbow,
            knee=self.knee,
            **self.curves,
        )
        return posture.joints()

    def step(self) -> Array:
        """Place the feet (F, 2, 3): each stays where it stands until the hips have moved on, then
        steps."""
        F, rng = len(self.times), self.rng
        width, ahead = self.stance
        c, s = np.cos(self.heading), np.sin(self.heading)
        left, forward = np.stack([c, -s], 1), np.stack([s, c], 1)
        home = np.stack(
            [self.path + sign * (width * left + ahead * forward) for sign in (1, -1)], axis=1
        )

        feet = np.zeros((F, 2, 3))
        now, swing = home[0].copy(), None
        for frame in range(F):
            if swing is None:
                coming = home[min(frame + 6, F - 1)]
                error = np.linalg.norm(coming - now, axis=1)
                side = int(error.argmax())
                if error[side] > STEP_ERROR:
                    speed = (
                        np.linalg.norm(
                            self.path[min(frame + 3, F - 1)] - self.path[max(frame - 3, 0)]
                        )
                        * FPS
                        / 6
                    )
                    frames = int(np.clip(13 - 3 * speed, 8, 13))
                    after = min(frame + frames + 3, F - 1)
                    swing = (
                        side,
                        frame,
                        frames,
                        now[side].copy(),
                        home[after, side],
                        rng.uniform(0.05, 0.14),
                    )
            feet[frame, :, [0, 2]] = now.T
            feet[frame, :, 1] = ANKLE
            if swing is not None:
                side, start, frames, old, new, high = swing
                share = min((frame - start + 1) / frames, 1)
                eased = share**2 * (3 - 2 * share)
                feet[frame, side, [0, 2]] = old + eased * (new - old)
                feet[frame, side, 1] = ANKLE + high * np.sin(np.pi * share)
                if share >= 1:
                    now[side], swing = new, None
        return feet


def hanging(rng: Generator) -> Array:
    """Draw a hand that hangs: outward, up, forward of its shoulder, in arm lengths."""
    return np.array([rng.uniform(0.0, 0.25), -rng.uniform(0.88, 0.99), rng.uniform(-0.05, 0.22)])


def smooth(values: Array, width: int) -> Array:
    """Average over `width` neighbours of the first axis, ends repeated."""
    padded = np.pad(values, [(width // 2, width // 2)] + [(0, 0)] * (values.ndim - 1), mode="edge")
    neighbours = [padded[shift : shift + len(values)] for shift in range(width)]
    return np.mean(neighbours, axis=0)
