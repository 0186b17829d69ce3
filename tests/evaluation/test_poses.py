"""Measures of a pose model on scenes of held-out motion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.checkpoints.folder import load_folder, save_checkpoint
from marey.evaluation.poses import (
    SceneAnswer,
    SceneLogits,
    answers_at,
    filmed_scenes,
    fit_calibration,
    fit_unknown,
    measure,
    measure_sets,
    scene_tracks,
)
from marey.inference.pose_windows import PoseClips
from marey.inference.poses import PosePredictor
from marey.models import create_model
from marey.persons.sources import pose_finder
from marey.synthetic.poses.filmed import film_scene
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.scenes import Person
from marey.synthetic.poses.vocabulary import OTHER
from marey.transforms.pose_clip import PoseSampling

NAMES = ["walk", "run", "jump", OTHER]


def answer(label: str, said: str, known: float, source: str = "cmu/a/b") -> SceneAnswer:
    return SceneAnswer(
        label=label, source=source, answer=said, probability=known, unnamed_probability=1 - known
    )


def test_the_limit_weighs_known_scenes_let_through_against_other_scenes_found():
    known = [answer("walk", "walk", p) for p in (0.9, 0.8, 0.7, 0.6)]
    wrong = [answer("walk", "run", p) for p in (0.35, 0.3)]
    other = [answer("other", "walk", p) for p in (0.5, 0.4, 0.2, 0.1)]
    fitted = fit_unknown([*known, *wrong, *other])
    # between .4 and .5: all others lie above, and two known scenes; higher up others are lost
    assert 0.4 < fitted["threshold"] < 0.5
    assert fitted["recognised"] == 1.0
    assert fitted["false_alarm_rate"] == pytest.approx(2 / 6, abs=1e-4)


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


@pytest.fixture
def predictor(tmp_path) -> PosePredictor:
    model = create_model(
        "timesformer", stem="pose", num_classes=4, num_frames=16, embed_dim=16, depth=1, num_heads=2
    )
    save_checkpoint(
        tmp_path,
        model,
        class_names=NAMES,
        preprocess=PoseSampling(),
        extra={"other_class": OTHER},
    )
    return PosePredictor(load_folder(tmp_path))


def asked(count: int, scale: float) -> list[SceneLogits]:
    """Scenes of two windows; three of four have their largest logit at the true class."""
    generator = torch.Generator().manual_seed(0)
    scenes = []
    for number in range(count):
        place = number % 4
        logits = torch.randn(2, 4, generator=generator)
        logits[:, place if number % 16 < 12 else (place + 1) % 4] += 2.0
        clips = PoseClips(
            clips=torch.zeros(2, 16, 17, 3),
            tracks=(1, 1),
            start_seconds=(0.0, 0.5),
            weight=torch.ones(2),
        )
        scene = SceneLogits(label=NAMES[place], source="x", logits=logits * scale, clips=clips)
        scenes.append(scene)
    return scenes


def test_the_temperature_undoes_a_scale_of_the_logits(predictor):
    plain = fit_calibration(predictor, asked(160, 1.0))
    scaled = fit_calibration(predictor, asked(160, 2.0))
    assert scaled["temperature"] / plain["temperature"] == pytest.approx(2, rel=0.05)
    assert plain["calibrated"] is False  # no real video took part
    assert scaled["unknown"]["threshold"] == pytest.approx(plain["unknown"]["threshold"], abs=0.02)


def test_sets_cover_as_many_as_asked_and_top_k_is_their_control(predictor):
    scenes = asked(400, 1.0)
    fitted = fit_calibration(predictor, scenes)
    answers = answers_at(predictor, scenes, fitted["temperature"])
    thresholds = fitted["trust"]["set"]["thresholds"]
    found = measure_sets(answers, predictor.class_names, thresholds)
    assert 0.88 <= found["0.9"]["coverage"] <= 0.95
    assert 1 <= found["0.8"]["mean_size"] <= found["0.95"]["mean_size"] <= 3
    assert found["0.9"]["top_k"] in (2, 3)
    assert predictor.class_names == ("walk", "run", "jump")


def test_filmed_scenes_are_looked_at_once(tmp_path, monkeypatch):
    pytest.importorskip("cv2", reason="people are drawn with OpenCV")
    filmed = []

    def counted(label, *words, **options):
        filmed.append(label)
        return film_scene(label, *words, **options)

    monkeypatch.setattr("marey.evaluation.poses.film_scene", counted)
    library, finder = Library(cmu=[], deepmimic=[]), pose_finder("auto")

    def tracks(labels):
        scenes = filmed_scenes(library, labels, "val", 2, 7, finder=finder, folder=tmp_path)
        return [(label, source, len(found.tracks)) for label, source, found in scenes]

    first = tracks(["bend", "sit"])
    assert [(label, source) for label, source, _ in first] == [
        ("bend", "filmed"),
        ("sit", "filmed"),
    ]
    assert tracks(["bend", "sit"]) == first
    assert filmed == ["bend", "sit"]
    tracks(["bend", "stand"])
    assert filmed == ["bend", "sit", "stand"]
