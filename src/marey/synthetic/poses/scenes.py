"""Who is in front of the camera, and what a pose network reports of them.

Axes: F moments, 17 keypoints. Everything is drawn from one generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from marey.synthetic.poses import actor
from marey.synthetic.poses.body import turn
from marey.synthetic.poses.compositions import stand
from marey.synthetic.poses.errors import confuse, exchange_persons, observe
from marey.synthetic.poses.floor import fall
from marey.synthetic.poses.library import Library, true_joints
from marey.synthetic.poses.splice import heading_of, placed, sample
from marey.synthetic.poses.strikes import fight
from marey.synthetic.poses.views import draw_view, look
from marey.synthetic.poses.vocabulary import OTHER, STRIKES, TWO_PEOPLE
from marey.synthetic.poses.whole_body import react
from marey.transforms.pose_clip import PoseSampling, at_moments, with_nearest

Array = NDArray[np.float64]

RATES = (12.5, 12.5, 12.5, 12.5, 10.0, 8.3, 25.0)
"""Frames a second at which videos are looked at; slow cameras have no more."""

SPOILT = (
    "run",
    "jump",
    "kick",
    "punch",
    "throw or dribble",
    "cartwheel",
    "flip or roll",
    "wave or signal",
    "push",
)
"""Actions of which a spoiled motion is certainly no longer one of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person of a scene, as reported."""

    label: str
    """What the person does; "other" where that has no name in the vocabulary."""
    source: str
    keypoints: Array
    """(F, 17, 3): x right, y down (about one unit a metre), score in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who is there and moves how; the one who matters first."""

    labels: tuple[str, ...]
    sources: tuple[str, ...]
    """"partner" is whoever something is done to."""
    bodies: tuple[Array, ...]
    """Joints of each (F, 17, 3), metres, y up."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A cast as a camera sees it; of each person a place and a depth."""

    places: list[Array]
    """(F, 17, 2), x right, y down, about one unit a metre."""
    depths: list[Array]
    """(F, 17), metres beyond the middle of the scene."""
    distance: float
    """Metres from the camera to that middle."""


PASSING = ("stand", "stand", "walk", "walk", "wave or signal")
"""What people do who pass through the window of somebody else."""

MOST_FIGHTERS, JOIN_IN = 5, 0.3
"""In a fight, and the chance that one more joins in."""

FIGHT_BACK, BEATEN = 0.5, 0.12
"""Chances that whoever is fought with fights back, or falls or lies there."""

LOSE_PERSON = 0.08
"""Chance that the track of somebody who is not alone goes over to whoever is nearest."""


def nearest_body(places: list[Array], number: int) -> int:
    """Return which other body's middle is nearest in the picture, by the median over moments."""
    middles = [place[:, 5:13].mean(1) for place in places]
    apart = [np.median(np.linalg.norm(middles[number] - middle, axis=1)) for middle in middles]
    apart[number] = np.inf
    return int(np.argmin(apart))


def draw_cast(
    label: str,
    split: str,
    library: Library,
    seconds: Array,
    rng: Generator,
    *,
    company: Sequence[str] = (),
) -> Cast:
    """Draw somebody who does something, whoever it is done to, and passers-by.

    Args: as `draw_scene`.
    """
    if label == OTHER and rng.random() < 0.3:
        joints, source = true_joints(
            SPOILT[rng.integers(len(SPOILT))], split, library, seconds, rng
        )
        joints, source = spoiled(joints, rng), f"spoiled/{source}"
    else:
        joints, source = true_joints(label, split, library, seconds, rng)

    bodies, labels, sources = [joints], [label], [source]
    if label in TWO_PEOPLE and rng.random() < 0.75:
        partner, partner_label = partner_of(joints, label, seconds, rng)
        bodies.append(partner)
        labels.append(partner_label)
        sources.append("partner")
        while label == "fight" and len(bodies) < MOST_FIGHTERS and rng.random() < JOIN_IN:
            attack = STRIKES[rng.integers(len(STRIKES))]
            attacker, source = true_joints(attack, split, library, seconds, rng)
            bodies.append(around(partner, attacker, rng))
            labels.append(attack)
            sources.append(source)
    if company and rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            together = label in ("walk", "stand", "run") and rng.random() < 0.5
            passing = label if together else company[int(rng.integers(len(company)))]
            other, source = true_joints(passing, split, library, seconds, rng)
            bodies.append(beside(joints, other, rng, together=together))
            labels.append(passing)
            sources.append(source)
    return Cast(labels=tuple(labels), sources=tuple(sources), bodies=tuple(bodies))


def shoot(cast: Cast, seconds: Array, rng: Generator, split: str) -> Shot:
    """Look at a cast with a camera of a split."""
    view = draw_view(rng, split)
    picture, depth = look(np.concatenate(cast.bodies, axis=1), view, seconds, rng)
    places, depths = (np.split(values, len(cast.bodies), axis=1) for values in (picture, depth))
    return Shot(places=places, depths=depths, distance=view.distance)


def draw_scene(
    label: str,
    split: str,
    library: Library,
    seconds: Array,
    rng: Generator,
    *,
    company: Sequence[str] = (),
) -> list[Person]:
    """Draw a scene in which somebody does something; the actor comes first.

    Args:
        label: of the vocabulary, or a user's action.
        split: "train", "val" or "test": decides recordings, azimuths, bodies and paces.
        seconds: (F,), when the network looks.
        company: what others may do who have nothing to do with the actor; empty: nobody else is
            there.
    """
    if label == OTHER and rng.random() < 0.06:
        return [Person(label=OTHER, source="nobody", keypoints=nobody(len(seconds), rng))]
    cast = draw_cast(label, split, library, seconds, rng, company=company)
    shot = shoot(cast, seconds, rng, split)
    places, depths = shot.places, shot.depths
    people = []
    for number, (name, origin) in enumerate(zip(cast.labels, cast.sources, strict=True)):
        found = observe(places[number], depths[number], rng)
        if len(places) > 1:
            nearest = nearest_body(places, number)
            found = confuse(found, places[nearest], depths[nearest] - depths[number], rng)
            if rng.random() < LOSE_PERSON:
                found = exchange_persons(found, places[nearest], depths[nearest], rng)
        people.append(Person(label=name, source=origin, keypoints=found))
    return people


def draw_window(
    label: str, split: str, library: Library, sampling: PoseSampling, rng: Generator
) -> tuple[Array, str]:
    """Draw one window of an action, sampled as tracks of real video are: (T, P * 17, 3), whoever is
    nearest second, and source.

    Of those who strike and are struck some windows are of the latter: both take part in the fight.
    """
    rate = RATES[rng.integers(len(RATES))]
    seconds = np.arange(int(sampling.times[-1] * rate) + 2) / rate
    company = PASSING if sampling.num_persons > 1 else ()
    people = draw_scene(label, split, library, seconds, rng, company=company)
    moments = sampling.times + rng.uniform(0, seconds[-1] - sampling.times[-1])
    windows = torch.from_numpy(np.stack([seen_at(moments, seconds, who) for who in people]))
    if sampling.num_persons == 1:
        return windows[0].numpy().astype(np.float64), people[0].source
    struck = label in STRIKES and people[1:] and people[1].source == "partner"
    first = 1 if struck and rng.random() < 0.3 else 0
    others = torch.cat((windows[:first], windows[first + 1 :]))
    window = with_nearest(windows[[first]], others[None], sampling.min_score)[0]
    return window.numpy().astype(np.float64), people[0].source


def seen_at(moments: Array, seconds: Array, person: Person) -> NDArray[np.float32]:
    """Return the keypoints (T, 17, 3) of a person at moments (T,); zeros where not found."""
    there = person.keypoints[..., 2].max(1) > 0
    if not there.any():
        return np.zeros((len(moments), 17, 3), np.float32)
    return at_moments(seconds[there], person.keypoints[there].astype(np.float32), moments)


def beside(joints: Array, other: Array, rng: Generator, *, together: bool) -> Array:
    """Return somebody's joints (F, 17, 3) moved beside the actor's, half of the time within arm's
    reach; `together`: they came together and go the same way."""
    near = rng.uniform(0.45, 1.2) if rng.random() < 0.5 else rng.uniform(1.2, 4.0)
    away = turn("y", rng.uniform(0, 2 * np.pi, 1))[0] @ np.array([near, 0, 0])
    middle, theirs = joints[:, 11:13].mean(1) * (1, 0, 1), other[:, 11:13].mean(1) * (1, 0, 1)
    if not together:
        return other - theirs.mean(0) + middle.mean(0) + away
    half = len(joints) // 2
    angle = heading_of(joints[half]) - heading_of(other[half])
    rotation = turn("y", np.array([float(angle)]))[0]
    return (other - theirs[0]) @ rotation.T + middle[0] + away


def around(victim: Array, attacker: Array, rng: Generator) -> Array:
    """Return an attacker's joints (F, 17, 3) placed within reach of a victim, and facing them."""
    side = rng.uniform(0, 2 * np.pi)
    away = rng.uniform(0.5, 1.1) * np.array([np.sin(side), np.cos(side)])
    ground = victim[len(victim) // 2, 11:13].mean(0)[[0, 2]] + away
    return placed(attacker, side + np.pi, ground)


def partner_of(joints: Array, label: str, seconds: Array, rng: Generator) -> tuple[Array, str]:
    """Place somebody in front, and say what they do: the same turned round where both do it; else
    they stand, or stagger back; in a fight most fight back, and some are on the ground."""
    hips = joints[:, 11:13].mean(1)
    facing = float(heading_of(joints[len(joints) // 2]))
    forward = np.array([np.sin(facing), 0, np.cos(facing)])
    near = {"hug": (0.2, 0.45), "point": (0.8, 3.0)}.get(label, (0.55, 1.1))
    distance = rng.uniform(*near)
    if label in ("shake hands", "hug"):
        back = turn("y", np.array([np.pi]))[0]
        seen = joints - hips.mean(0) * (1, 0, 1)
        return seen @ back.T + hips.mean(0) * (1, 0, 1) + forward * distance, label

    if label == "fight" and rng.random() < FIGHT_BACK + BEATEN:
        beaten = rng.random() < BEATEN / (FIGHT_BACK + BEATEN)
        motion = (fall if beaten else fight)(rng)[0]
        other = sample(motion, actor.FPS, seconds + rng.uniform(0, 1.5))
        ground = (hips[len(hips) // 2] + forward * rng.uniform(0.3, 1.0))[[0, 2]]
        seen = placed(other, facing + np.pi + rng.normal(0, 0.4), ground)
        return seen, "fall or lie down" if beaten else "fight"

    reacts = label != "point" and rng.random() < 0.5
    motion, label = (react(rng)[0], OTHER) if reacts else (stand(rng)[0], "stand")
    other = sample(motion, actor.FPS, seconds + rng.uniform(0, 1))
    back = turn("y", np.array([facing + np.pi]))[0]
    seen = (other - other[0, 11:13].mean(0) * (1, 0, 1)) @ back.T
    return seen + hips[-1] * (1, 0, 1) + forward * distance, label


def spoiled(joints: Array, rng: Generator) -> Array:
    """Make a motion that is none: moments in random order, one odd posture held, or everything
    upside down."""
    kind = rng.integers(3)
    if kind == 0:
        return joints[rng.permutation(len(joints))]
    if kind == 1:
        return np.repeat(joints[[rng.integers(len(joints))]], len(joints), axis=0)
    return joints * (1, -1, 1)


def nobody(F: int, rng: Generator) -> Array:
    """Return what a network reports where there is no person: keypoints in disorder, with low
    scores."""
    places = rng.normal(0, 1, (17, 2)) * rng.uniform(0.1, 0.6, 2)
    moving = places + rng.normal(0, rng.uniform(0.005, 0.08), (F, 17, 2))
    score = np.clip(rng.uniform(0.1, 0.4) + rng.normal(0, 0.08, (F, 17)), 0.03, 0.6)
    return np.concatenate([moving, score[..., None]], axis=-1)
