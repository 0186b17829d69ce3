"""A pose model on scenes it never saw: what it calls each action, what it calls unknown, and the
limit between the two.

A scene is drawn from held-out recordings, azimuths, bodies and paces, with a partner or passers-by,
and goes through the same cutting and fusing as the tracks of a video.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from marey.inference.poses import PosePredictor
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.scenes import Person, draw_scene
from marey.synthetic.poses.vocabulary import OTHER

FALSE_ALARM_RATE = 0.05
"""Share of known held-out scenes that may be called unknown."""

SCENE_SECONDS = (1.6, 3.2)
"""Length of a scene."""

SCENE_FPS = 12.5


@dataclass(frozen=True, kw_only=True)
class SceneAnswer:
    """What a model said of one scene."""

    label: str
    source: str
    answer: str
    """The most probable known action."""
    probability: float
    known_probability: float
    """Of the most probable known action beside the class of all that has no name."""


def scene_tracks(people: Sequence[Person], seconds: np.ndarray, video: str) -> PoseTracks:
    """Make the tracks of a scene as `read_poses` would return them."""
    places = np.concatenate([person.keypoints[..., :2].reshape(-1, 2) for person in people])
    corner, size = places.min(0), float(np.ptp(places, axis=0).max()) * 1.2 + 1e-6
    tracks = []
    for number, person in enumerate(people, start=1):
        there = person.keypoints[..., 2].max(1) > 0
        if there.sum() < 3:
            continue
        keypoints = person.keypoints[there].astype(np.float32)
        keypoints[..., :2] = (keypoints[..., :2] - corner) / size
        boxes = np.concatenate([keypoints[..., :2].min(1), keypoints[..., :2].max(1)], axis=1)
        frames = np.flatnonzero(there)
        tracks.append(
            PoseTrack(
                number=number,
                frame_indices=frames,
                seconds=seconds[there],
                keypoints=keypoints,
                boxes_xyxy=boxes,
                scores=keypoints[..., 2].mean(1),
                observed=np.ones(len(frames), bool),
            )
        )
    return PoseTracks(
        video=video,
        width=1000,
        height=1000,
        fps=SCENE_FPS,
        frame_indices=np.arange(len(seconds)),
        seconds=seconds,
        tracks=tuple(tracks),
    )


def held_out_scenes(
    library: Library, labels: Sequence[str], split: str, count: int, seed: int
) -> Iterator[tuple[str, str, PoseTracks]]:
    """Draw scenes: label, source of the actor's motion, tracks. The labels take turns."""
    for index in range(count):
        rng = np.random.default_rng([seed, index, len(split)])
        seconds = np.arange(int(rng.uniform(*SCENE_SECONDS) * SCENE_FPS)) / SCENE_FPS
        label = labels[index % len(labels)]
        people = draw_scene(label, split, library, seconds, rng, crowd=True)
        yield label, people[0].source, scene_tracks(people, seconds, f"scene {index}")


def answer_scenes(
    predictor: PosePredictor, scenes: Iterator[tuple[str, str, PoseTracks]]
) -> list[SceneAnswer]:
    """Ask a model about scenes; those in which nobody was found are left out."""
    answers = []
    for label, source, tracks in scenes:
        found = predictor.answer(tracks)
        if not found.somebody:
            continue
        best = int(found.probabilities.argmax())
        answers.append(
            SceneAnswer(
                label=label,
                source=source,
                answer=predictor.class_names[best],
                probability=float(found.probabilities[best]),
                known_probability=found.known_probability,
            )
        )
    return answers


def fit_unknown(answers: Sequence[SceneAnswer]) -> dict[str, Any]:
    """Choose the limit of the unknown score from known scenes: `FALSE_ALARM_RATE` lie above it.

    Conformal quantile: the ceil((n + 1)(1 - rate))-th smallest of n scores.

    Returns:
        What goes into a checkpoint's calibration under "unknown".
    """
    scores = sorted(1 - answer.known_probability for answer in answers if answer.label != OTHER)
    rank = math.ceil((len(scores) + 1) * (1 - FALSE_ALARM_RATE))
    return {
        "method": "1 - largest probability of a known action, beside the class of all others",
        "threshold": scores[min(rank, len(scores)) - 1],
        "false_alarm_rate": FALSE_ALARM_RATE,
        "fitted_on": len(scores),
    }


def measure(answers: Sequence[SceneAnswer], threshold: float) -> dict[str, Any]:
    """Measure answers to scenes of held-out motion.

    Returns:
        "known": {"top1": "unknown" counts as wrong, "top1_of_guess": the first guess alone, "n"},
        "per_action": name -> {"n", "top1", "top1_of_guess", "called": {answer: count}},
        "unknown": {"recognised", "n"} of scenes without a name, and the same per source.
    """
    known = [answer for answer in answers if answer.label != OTHER]
    other = [answer for answer in answers if answer.label == OTHER]

    def is_unknown(answer: SceneAnswer) -> bool:
        return 1 - answer.known_probability > threshold

    def rates(rows: Sequence[SceneAnswer]) -> dict[str, Any]:
        guess = torch.tensor([row.answer == row.label for row in rows], dtype=torch.float)
        says = torch.tensor([not is_unknown(row) for row in rows], dtype=torch.float)
        return {
            "n": len(rows),
            "top1": round(float((guess * says).mean()), 4),
            "top1_of_guess": round(float(guess.mean()), 4),
        }

    per_action = {}
    for label in sorted({answer.label for answer in known}):
        rows = [answer for answer in known if answer.label == label]
        called: dict[str, int] = {}
        for row in rows:
            name = "unknown" if is_unknown(row) else row.answer
            called[name] = called.get(name, 0) + 1
        ordered = sorted(called.items(), key=lambda item: -item[1])
        per_action[label] = {**rates(rows), "called": dict(ordered)}
    per_source: dict[str, list[bool]] = {}
    for answer in other:
        kind = "/".join(answer.source.split("/")[:2])
        per_source.setdefault(kind, []).append(is_unknown(answer))
    return {
        "known": rates(known),
        "per_action": per_action,
        "unknown": {
            "n": len(other),
            "recognised": round(sum(map(is_unknown, other)) / max(len(other), 1), 4),
            "per_source": {
                kind: {"n": len(hits), "recognised": round(sum(hits) / len(hits), 4)}
                for kind, hits in sorted(per_source.items())
            },
        },
    }
