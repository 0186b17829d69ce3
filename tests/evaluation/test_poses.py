"""Measures of a pose model on scenes of held-out motion."""

from __future__ import annotations

import numpy as np
import pytest

from marey.evaluation.poses import SceneAnswer, fit_unknown, measure, scene_tracks
from marey.synthetic.poses.scenes import Person


def answer(label: str, said: str, known: float, source: str = "cmu/a/b") -> SceneAnswer:
    return SceneAnswer(
        label=label, source=source, answer=said, probability=known, known_probability=known
    )


def test_the_limit_lets_five_of_a_hundred_known_scenes_through():
    known = [answer("walk", "walk", 1 - number / 100) for number in range(100)]
    fitted = fit_unknown([*known, answer("other", "walk", 0.0)])
    above = sum(1 - row.known_probability > fitted["threshold"] for row in known)
    assert above <= 5
    assert fitted["fitted_on"] == 100


def test_unknown_is_wrong_for_a_known_action_and_right_for_the_others():
    rows = [
        answer("walk", "walk", 0.9),
        answer("walk", "walk", 0.1),
        answer("run", "walk", 0.9),
        answer("other", "walk", 0.1, "deepmimic/dance b"),
        answer("other", "walk", 0.9, "spoiled/cmu/x"),
    ]
    found = measure(rows, threshold=0.5)
    assert found["known"] == {"n": 3, "top1": 0.3333, "top1_of_guess": 0.6667}
    assert found["per_action"]["walk"]["called"] == {"walk": 1, "unknown": 1}
    assert found["unknown"]["recognised"] == 0.5
    assert found["unknown"]["per_source"]["deepmimic/dance b"] == {"n": 1, "recognised": 1.0}


def test_a_scene_becomes_tracks_without_the_moments_nobody_was_found():
    keypoints = np.random.default_rng(0).random((20, 17, 3))
    keypoints[4:6] = 0
    gone = np.zeros((20, 17, 3))
    people = [
        Person(label="walk", source="x", keypoints=keypoints),
        Person(label="stand", source="y", keypoints=gone),
    ]
    found = scene_tracks(people, np.arange(20) / 12.5, "scene")
    assert len(found.tracks) == 1
    assert len(found.tracks[0].seconds) == 18
    assert found.tracks[0].keypoints[..., :2].max() <= 1
    assert found.tracks[0].seconds[4] == pytest.approx(6 / 12.5)
