"""A pose model on scenes it never saw: what it calls each action, what it calls unknown, and what
its checkpoint stores of both: temperature, limit of "unknown", prediction sets.

A scene is drawn from held-out recordings, azimuths, bodies and paces, with a partner or passers-by,
and goes through the same cutting and fusing as the tracks of a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.inference.pose_windows import PoseClips, cut_tracks, fuse
from marey.inference.poses import PosePredictor
from marey.metrics.calibration import calibration_error
from marey.metrics.conformal import aps_scores, conformal_threshold, prediction_sets
from marey.metrics.selective import auroc, fpr_at_tpr
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.persons.poses import PoseFinder
from marey.synthetic.poses.filmed import film_scene
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.scenes import Person, draw_scene
from marey.synthetic.poses.vocabulary import OTHER

COVERAGES = (0.8, 0.85, 0.9, 0.95)
"""Of the prediction sets that are fitted."""

SCENE_SECONDS = (1.6, 3.2)
"""Length of a scene."""

SCENE_FPS = 12.5

FILMED = "filmed"
"""Source of a scene that was drawn as pictures."""


@dataclass(frozen=True, kw_only=True)
class SceneLogits:
    """What a model returned for the windows of one scene."""

    label: str
    source: str
    logits: Tensor
    """(W, K), the class without a name included."""
    clips: PoseClips


@dataclass(frozen=True, kw_only=True)
class SceneAnswer:
    """What a model said of one scene."""

    label: str
    """Name of the right answer; `OTHER` where it has none."""
    source: str
    """Where the actor's motion comes from, or which class of the model it is."""
    answer: str
    """The most probable known action."""
    probability: float
    unnamed_probability: float
    """That none of the known actions is shown."""
    probabilities: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(K,), over the known actions."""


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
        people = draw_scene(label, split, library, seconds, rng, company=("stand",))
        yield label, people[0].source, scene_tracks(people, seconds, f"scene {index}")


def filmed_scenes(
    library: Library,
    labels: Sequence[str],
    split: str,
    count: int,
    seed: int,
    *,
    finder: PoseFinder,
    folder: Path,
) -> Iterator[tuple[str, str, PoseTracks]]:
    """Draw scenes as pictures, and look for people in them: label, source of the actor's motion,
    tracks. The labels take turns.

    Args:
        folder: where tracks are kept; those of a scene that are there are not looked for again.
    """
    for index in range(count):
        label = labels[index % len(labels)]
        kept = folder / f"{split}-{seed}-{index}-{label.replace(' ', '_')}.npz"
        if not kept.is_file():
            rng = np.random.default_rng([seed, index, len(split), 1])
            seconds = np.arange(int(rng.uniform(*SCENE_SECONDS) * SCENE_FPS)) / SCENE_FPS
            scene = film_scene(label, split, library, seconds, finder, rng, company=("stand",))
            scene.tracks.save(kept)
        yield label, FILMED, PoseTracks.load(kept)


def ask_scenes(
    predictor: PosePredictor, scenes: Iterator[tuple[str, str, PoseTracks]]
) -> list[SceneLogits]:
    """Ask a model about scenes; those in which nobody was found are left out."""
    asked = []
    for label, source, tracks in scenes:
        clips = cut_tracks(tracks, predictor.sampling)
        if len(clips):
            logits = predictor.logits(clips)
            asked.append(SceneLogits(label=label, source=source, logits=logits, clips=clips))
    return asked


def answers_at(
    predictor: PosePredictor, asked: Sequence[SceneLogits], temperature: float
) -> list[SceneAnswer]:
    """Return what the model says of scenes at a temperature."""
    answers = []
    for scene in asked:
        every = fuse(predictor.probabilities_at(scene.logits, temperature), scene.clips)
        known = every[predictor.known]
        best = int(known.argmax())
        probabilities = known / known.sum()
        answers.append(
            SceneAnswer(
                label=predictor.shown_as[scene.label] or OTHER,
                source=scene.source if scene.label == OTHER else scene.label,
                answer=predictor.class_names[best],
                probability=float(probabilities[best]),
                unnamed_probability=predictor.unnamed_probability(every),
                probabilities=probabilities,
            )
        )
    return answers


def fit_calibration(predictor: PosePredictor, asked: Sequence[SceneLogits]) -> dict[str, Any]:
    """Fit temperature, limit of "unknown" and prediction sets on scenes of held-out motion.

    The temperature has the least mean negative logarithm of the true class's probability, the
    class without a name included, of 61 between .5 and 4.

    Returns:
        What goes into the checkpoint's calibration. "calibrated" is false: no real video took
        part, and real people move and are seen in other ways.
    """
    columns = [*predictor.class_names, None]
    truth = [columns.index(predictor.shown_as[scene.label]) for scene in asked]

    def loss(temperature: float) -> float:
        chances = [
            float(fuse(predictor.probabilities_at(scene.logits, temperature), scene.clips)[number])
            for scene, number in zip(asked, truth, strict=True)
        ]
        return float(-np.log(np.maximum(chances, 1e-9)).mean())

    temperature = float(min(np.geomspace(0.5, 4, 61), key=loss))
    answers = answers_at(predictor, asked, temperature)
    known = [row for row in answers if row.label != OTHER]
    places = [predictor.class_names.index(row.label) for row in known]
    scores = aps_scores(torch.stack([row.probabilities for row in known]))
    of_truth = scores[torch.arange(len(known)), places]
    return {
        "calibrated": False,
        "fitted_on": f"{len(asked)} scenes of held-out captured and composed motion, no real video",
        "temperature": temperature,
        "unknown": fit_unknown(answers),
        "trust": {
            "reason": "fitted on captured and composed motion, not on real video",
            "num_videos": len(asked),
            "set": {
                "method": "aps",
                "thresholds": {
                    str(coverage): conformal_threshold(of_truth, coverage) for coverage in COVERAGES
                },
            },
        },
    }


def fit_unknown(answers: Sequence[SceneAnswer]) -> dict[str, Any]:
    """Choose the limit of the unknown score: Youden's, the one with the highest mean of two shares,
    that of known scenes below it and that of other scenes above it.

    Youden, "Index for rating diagnostic tests", 1950.

    Returns:
        What goes into a checkpoint's calibration under "unknown"; "false_alarm_rate": share of
        known scenes above the limit, "recognised": share of the others above it.
    """
    scores = np.array([row.unnamed_probability for row in answers if row.label != OTHER])
    others = np.array([row.unnamed_probability for row in answers if row.label == OTHER])
    every = np.unique(np.concatenate([scores, others]))
    limits = np.concatenate([(every[1:] + every[:-1]) / 2, every[-1:]])
    gains = [(scores <= limit).mean() + (others > limit).mean() for limit in limits]
    limit = float(limits[int(np.argmax(gains))])
    return {
        "method": "probability of the class of all other motions; the limit has the highest mean "
        "of known scenes below it and other scenes above it",
        "threshold": limit,
        "false_alarm_rate": round(float((scores > limit).mean()), 4),
        "recognised": round(float((others > limit).mean()), 4),
        "fitted_on": len(answers),
    }


def measure(answers: Sequence[SceneAnswer], threshold: float) -> dict[str, Any]:
    """Measure answers to scenes of held-out motion.

    Returns:
        "known": {"top1": "unknown" counts as wrong, "top1_of_guess": the first guess alone, "n"},
        "per_action": name -> {"n", "top1", "top1_of_guess", "called": {answer: count}},
        "unknown": {"recognised", "n"} of scenes without a name, and the same per source, with area
        under the ROC curve and false alarms where 95 % of them are found,
        "ece" of the first guess over known scenes.
    """
    known = [answer for answer in answers if answer.label != OTHER]
    other = [answer for answer in answers if answer.label == OTHER]

    def is_unknown(answer: SceneAnswer) -> bool:
        return answer.unnamed_probability > threshold

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
    confidence = torch.tensor([row.probability for row in known])
    right = torch.tensor([row.answer == row.label for row in known])
    score_known, score_other = (
        torch.tensor([row.unnamed_probability for row in rows]) for rows in (known, other)
    )
    return {
        "known": rates(known),
        "per_action": per_action,
        "ece": round(calibration_error(confidence, right), 4) if known else None,
        "unknown": {
            "n": len(other),
            "auroc": round(auroc(score_known, score_other), 4) if known and other else None,
            "fpr95": round(fpr_at_tpr(score_known, score_other), 4) if known and other else None,
            "recognised": round(sum(map(is_unknown, other)) / max(len(other), 1), 4),
            "per_source": {
                kind: {"n": len(hits), "recognised": round(sum(hits) / len(hits), 4)}
                for kind, hits in sorted(per_source.items())
            },
        },
    }


def measure_sets(
    answers: Sequence[SceneAnswer], class_names: Sequence[str], thresholds: Mapping[str, float]
) -> dict[str, Any]:
    """Measure the prediction sets over scenes of known actions.

    Returns:
        coverage asked for -> {"coverage", "mean_size", "top_k": how many first guesses cover as
        much}.
    """
    known = [row for row in answers if row.label != OTHER]
    probs = torch.stack([row.probabilities for row in known])
    places = torch.tensor([list(class_names).index(row.label) for row in known])
    ranks = (probs > probs.gather(1, places[:, None])).sum(1) + 1
    found = {}
    for coverage, threshold in thresholds.items():
        inside = prediction_sets(probs, threshold)
        covered = float(inside.gather(1, places[:, None]).float().mean())
        top_k = next(
            k
            for k in range(1, len(class_names) + 1)
            if (ranks <= k).float().mean() >= covered - 1e-9
        )
        found[coverage] = {
            "coverage": round(covered, 4),
            "mean_size": round(float(inside.sum(1).float().mean()), 3),
            "top_k": top_k,
        }
    return found
