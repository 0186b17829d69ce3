"""Captured and composed motions by action and split, and stretches of them on random bodies.

Axes: F moments of a motion, T of a stretch, 17 keypoints; metres, y up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses import actor, recordings
from marey.synthetic.poses.body import mirror_body, reshape_body
from marey.synthetic.poses.compositions import stand
from marey.synthetic.poses.recordings import Recording
from marey.synthetic.poses.splice import exaggerate, go_round, graft, join, sample
from marey.synthetic.poses.vocabulary import (
    OTHER_HELD_OUT,
    VOCABULARY,
    Sources,
    split_of,
)

Array = NDArray[np.float64]

FPS = recordings.FPS

SPEEDS = {"train": ((0.7, 0.95), (1.05, 1.4)), "val": ((0.95, 1.0),), "test": ((1.0, 1.05),)}
"""How much faster than recorded, by split; no value of one split can occur in another."""

LIMBS = {"train": ((0.88, 0.97), (1.03, 1.12)), "val": ((0.97, 1.0),), "test": ((1.0, 1.03),)}
"""Factors of the lengths of limbs, by split."""

LEAST_TRAVEL, LEAST_HOP = 0.35, 0.12
"""A walk moves on by at least so many metres a second; in a jump the lower foot leaves the ground
by so many metres."""

TRIES = 12
"""Windows of a recording that do not show its action are drawn again, so often."""


def draw_from(rng: Generator, intervals: Sequence[tuple[float, float]]) -> float:
    """Draw a number uniformly from one of some intervals, chosen by length."""
    lengths = np.array([high - low for low, high in intervals])
    low, high = intervals[rng.choice(len(intervals), p=lengths / lengths.sum())]
    return float(rng.uniform(low, high))


@dataclass(kw_only=True)
class Library:
    """All recordings, by source and split."""

    cmu: list[Recording]
    deepmimic: list[Recording]
    own: list[Recording] = field(default_factory=list)
    """A user's; each action's folder is a class of its own, or adds to one of the vocabulary."""

    def __post_init__(self) -> None:
        self.by_action: dict[tuple[str, str], list[Recording]] = {}
        for recording in self.cmu:
            action = recording.action
            joints = recording.joints
            if action in ("running", "walking", "walking_extra"):
                joints = go_round(joints, FPS, 6.0)
            kept = Recording(name=recording.name, action=action, joints=joints)
            self.by_action.setdefault((action, split_of(recording.name, action)), []).append(kept)
        for recording in self.deepmimic:
            for split in ("train", "val", "test"):
                if recording.action not in OTHER_HELD_OUT.get("val", ()) + OTHER_HELD_OUT.get(
                    "test", ()
                ) or recording.action in OTHER_HELD_OUT.get(split, ()):
                    self.by_action.setdefault((recording.action, split), []).append(recording)
        for place, recording in enumerate(self.own):
            split = ("train", "train", "train", "val", "test")[place % 5]
            self.by_action.setdefault((f"own {recording.action}", split), []).append(recording)

    def any_of(self, actions: Sequence[str], split: str) -> list[Recording]:
        """Return the recordings of some actions in a split."""
        return [
            recording for action in actions for recording in self.by_action.get((action, split), [])
        ]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A motion that an action is cut from."""

    source: str
    joints: Array
    """(F, 17, 3)."""
    fps: float
    begin: float
    end: float
    """Seconds between which the action happens."""


def draw_motion(label: str, split: str, library: Library, rng: Generator) -> Motion:
    """Draw a motion of an action from its sources."""
    sources = VOCABULARY.get(label, Sources(shares=(0, 0, 0)))
    options: list[tuple[float, str]] = []
    captured = library.any_of(sources.cmu, split)
    mimicked = library.any_of(sources.deepmimic, split)
    reverse = library.any_of(sources.backwards, split)
    own = library.any_of((f"own {label}",), split)
    for share, kind, there in (
        (sources.shares[0], "cmu", captured),
        (sources.shares[1], "deepmimic", mimicked or reverse),
        (sources.shares[2], "composed", sources.composed),
        (0.5 if own else 0.0, "own", own),
    ):
        if share > 0 and there:
            options.append((share, kind))
    weights = np.array([share for share, _ in options])
    kind = options[rng.choice(len(options), p=weights / weights.sum())][1]

    if kind == "composed":
        compose = sources.composed[rng.integers(len(sources.composed))]
        joints, begin, end = compose(rng)
        return Motion(
            source=f"composed/{compose.__name__}",
            joints=joints,
            fps=actor.FPS,
            begin=begin,
            end=end,
        )
    if kind in ("cmu", "own"):
        found = captured if kind == "cmu" else own
        chosen = found[rng.integers(len(found))]
        joints = chosen.joints
        if label in ("walk", "run") and rng.random() < 0.3:
            joints = graft(sample(stand(rng)[0], actor.FPS, np.arange(0, 4, 1 / FPS)), joints)
        return Motion(source=chosen.name, joints=joints, fps=FPS, begin=0, end=len(joints) / FPS)

    place = rng.integers(len(mimicked) + len(reverse))
    chosen = (mimicked + reverse)[place]
    joints = exaggerate(chosen.joints, rng.uniform(0.8, 1.15))
    if place >= len(mimicked):
        joints = joints[::-1].copy()
    if label in ("walk", "run", "crawl"):
        return Motion(source=chosen.name, joints=joints, fps=FPS, begin=0, end=len(joints) / FPS)
    return embedded(joints, chosen.name, split, library, rng)


def embedded(joints: Array, name: str, split: str, library: Library, rng: Generator) -> Motion:
    """Put something before and after a short recording: its first and last posture held, or a
    walk."""
    walks = library.any_of(("walking_extra",), split)
    gap = round(rng.uniform(0.2, 0.45) * FPS)
    upright = joints[0, 0, 1] > 1.1
    if walks and upright and rng.random() < 0.45:
        walk = walks[rng.integers(len(walks))].joints
        start = rng.integers(0, max(len(walk) - 2 * round(FPS), 1))
        before = walk[start : start + round(1.5 * FPS)]
        whole = join(before, joints, gap)
        begin = (len(before) + gap) / FPS
    else:
        held = np.repeat(joints[:1], round(1.2 * FPS), axis=0)
        whole, begin = np.concatenate([held, joints]), 1.2
    end = begin + len(joints) / FPS
    upright = joints[-1, 0, 1] > 1.1
    if walks and upright and rng.random() < 0.3:
        walk = walks[rng.integers(len(walks))].joints
        whole = join(whole, walk[: round(1.5 * FPS)], gap)
    else:
        whole = np.concatenate([whole, np.repeat(joints[-1:], round(1.2 * FPS), axis=0)])
    return Motion(source=name, joints=whole, fps=FPS, begin=begin, end=end)


def window_times(motion: Motion, seconds: float, rng: Generator) -> float:
    """Draw the second of the motion at which a window starts; it sees at least .7 of the action, or
    is full of it."""
    length = motion.end - motion.begin
    need = 0.7 * min(seconds, length)
    low, high = motion.begin + need - seconds, motion.end - need
    low, high = max(low, 0.0), min(high, len(motion.joints) / motion.fps - seconds)
    return float(rng.uniform(low, high)) if high > low else max(low if high < 0 else high, 0.0)


def shows(label: str, motion: Motion, joints: Array, seconds: float) -> bool:
    """Whether a window cut from a recording shows what its label says."""
    if not motion.source.startswith("cmu/"):
        return True
    hips = joints[:, 11:13].mean(1)
    if label == "walk":
        way = np.linalg.norm(np.diff(hips[:, [0, 2]], axis=0), axis=1).sum()
        return bool(way / seconds > LEAST_TRAVEL)
    if label == "jump":
        lower = joints[:, 15:17, 1].min(1)
        return bool(np.ptp(lower) > LEAST_HOP)
    still = np.ptp(hips[:, [0, 2]], axis=0).max() < 0.5
    raised = joints[:, 9:11, 1] > joints[:, 5:7, 1] - 0.2
    if label == "stand":
        return bool(still and raised.mean() < 0.05 and np.ptp(joints[:, 9:11], axis=0).max() < 0.25)
    if label == "wave or signal":
        moving = np.linalg.norm(np.diff(joints[:, 9:11], axis=0), axis=-1).sum(0).max() / seconds
        return bool(raised.any(1).mean() > 0.3 and moving > 0.4)
    return True


def true_joints(
    label: str, split: str, library: Library, times: Array, rng: Generator
) -> tuple[Array, str]:
    """Draw a window (T, 17, 3) in metres, of a random body, at a random pace, mirrored half of the
    time."""
    speed = draw_from(rng, SPEEDS[split])
    seconds = float(times[-1] * speed)
    for _ in range(TRIES):
        motion = draw_motion(label, split, library, rng)
        start = window_times(motion, seconds, rng)
        joints = sample(motion.joints, motion.fps, start + times * speed)
        if shows(label, motion, joints, seconds):
            break
    lengths = {name: draw_from(rng, LIMBS[split]) for name in ("arm", "leg", "trunk")}
    joints = reshape_body(joints, **lengths, width=rng.uniform(0.85, 1.15))
    return (mirror_body(joints) if rng.random() < 0.5 else joints), motion.source
