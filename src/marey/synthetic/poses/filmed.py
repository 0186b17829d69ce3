"""Scenes that are drawn as pictures and looked at by the pose networks themselves: their errors are
not modelled but made.

Two people in contact hide each other, small people blur, tracks change over, and things are taken
for people, as in real video; no frame of one takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from marey.persons.pose_tracks import PoseTrack, PoseTracks, others_at, poses_of_frames
from marey.persons.poses import PoseFinder
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.pictures import HEIGHT, film
from marey.synthetic.poses.scenes import PASSING, RATES, draw_cast, shoot
from marey.synthetic.poses.vocabulary import OTHER, STRIKES
from marey.transforms.pose_clip import PoseSampling, at_moments, with_nearest
from marey.video.clip import Clip

Array = NDArray[np.float64]

FARTHEST = 0.35
"""A track whose box is farther from everybody's, in body heights, is of nobody."""

SIZES = (0.4, 2.2)
"""So many times as high as the person may a track's box be."""

PHANTOM = "nobody"
"""Source of the track of something that is no person."""


@dataclass(frozen=True, kw_only=True)
class FilmedScene:
    """What the pose networks found in a drawn scene."""

    tracks: PoseTracks
    labels: tuple[str, ...]
    """What whoever each track follows does; `OTHER` where it follows nobody."""
    sources: tuple[str, ...]
    """Where the motion of each comes from."""


def film_scene(
    label: str,
    split: str,
    library: Library,
    seconds: Array,
    finder: PoseFinder,
    rng: Generator,
    *,
    company: Sequence[str] = PASSING,
) -> FilmedScene:
    """Draw a scene, film it, and look for people in it.

    Whoever is struck takes part in the fight, and has its label.

    Args:
        label: what the first person does.
        seconds: (F,), when the camera takes a picture.
        finder: finds people and their poses.
        company: what passers-by may do.

    Raises:
        UserError: if OpenCV is missing.
    """
    cast = draw_cast(label, split, library, seconds, rng, company=company)
    shot = shoot(cast, seconds, rng, split)
    pictures, places = film(shot.places, shot.depths, shot.distance, rng)
    clip = Clip(
        frames=torch.from_numpy(pictures).permute(0, 3, 1, 2),
        frame_indices=tuple(range(len(pictures))),
        frame_seconds=tuple(seconds.tolist()),
        fps=float(1 / (seconds[1] - seconds[0])),
        path=f"drawn {label}",
    )
    found = poses_of_frames(clip, finder=finder)
    names = [
        label if source == "partner" and label in STRIKES else name
        for name, source in zip(cast.labels, cast.sources, strict=True)
    ]
    owners = [owner_of(track, places, seconds) for track in found.tracks]
    return FilmedScene(
        tracks=found,
        labels=tuple(OTHER if owner is None else names[owner] for owner in owners),
        sources=tuple(PHANTOM if owner is None else cast.sources[owner] for owner in owners),
    )


def owner_of(track: PoseTrack, places: Array, seconds: Array) -> int | None:
    """Return whom a track follows most of the time; None: nobody.

    Args:
        places: (F, N, 17, 2), true keypoints in pixels.
        seconds: (F,), of the pictures.
    """
    moments = np.abs(track.seconds[:, None] - seconds).argmin(1)
    boxes = track.boxes_xyxy * HEIGHT
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]).max(1)
    best, nearest = None, FARTHEST
    for person in range(places.shape[1]):
        true = places[moments, person]
        low, high = true.min(1), true.max(1)
        tall = np.maximum((high - low).max(1), 1.0)
        away = float(np.median(np.linalg.norm(middles - (low + high) / 2, axis=1) / tall))
        size = float(np.median(sides / tall))
        if away < nearest and SIZES[0] < size < SIZES[1]:
            best, nearest = person, away
    return best


def film_windows(
    label: str,
    split: str,
    library: Library,
    sampling: PoseSampling,
    finder: PoseFinder,
    rng: Generator,
) -> list[tuple[NDArray[np.float32], str, str]]:
    """Film one scene, and cut a window of everyone who was found.

    Returns:
        Of each: the window (T, P * 17, 3) as recorded, label and source. Nobody found: none.
    """
    rate = RATES[rng.integers(len(RATES) - 1)]
    seconds = np.arange(int((sampling.times[-1] + 0.25) * rate) + 2) / rate
    scene = film_scene(label, split, library, seconds, finder, rng)
    windows = []
    for track, name, source in zip(scene.tracks.tracks, scene.labels, scene.sources, strict=True):
        middle = (track.seconds[0] + track.seconds[-1]) / 2
        start = float(np.clip(middle - sampling.times[-1] / 2, 0, seconds[-1] - sampling.times[-1]))
        window = at_moments(track.seconds, track.keypoints, start + sampling.times)
        if (window[..., 2].max(-1) > 0).mean() < sampling.min_seen:
            continue
        own = torch.from_numpy(window)[None]
        if sampling.num_persons > 1:
            others = others_at(scene.tracks, track, [start], sampling)
            own = with_nearest(own, others, sampling.min_score)
        windows.append((own[0].numpy(), name, source))
    return windows
