"""Each kind of model is loaded as what answers with it."""

from __future__ import annotations

from pathlib import Path

import pytest

import marey
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.inference.detector import Detector
from marey.inference.features import FeaturePredictor
from marey.inference.load import load_answerer, load_window_predictor
from marey.inference.poses import PosePredictor
from marey.inference.predictor import Predictor


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("marey-mini-rgb", Predictor),
        ("marey-mini-gat", FeaturePredictor),
        ("marey-mini-detect", Detector),
    ],
)
def test_the_task_of_a_model_chooses_the_class(model: str, kind: type) -> None:
    answerer = load_answerer(model)
    assert type(answerer) is kind


def test_the_public_predictor_loads_models_of_clips_and_of_features() -> None:
    assert type(marey.Predictor.load("marey-mini-rgb")) is Predictor
    assert type(marey.Predictor.load("marey-mini-gat")) is FeaturePredictor
    with pytest.raises(UserError, match="no classifier of clips, it answers 'marey detect'"):
        marey.Predictor.load("marey-mini-detect")


def test_a_model_of_poses_is_loaded_by_every_entry(tiny_pose_checkpoint: Path) -> None:
    assert type(marey.Predictor.load(tiny_pose_checkpoint)) is PosePredictor
    assert type(load_answerer(tiny_pose_checkpoint)) is PosePredictor
    assert type(load_window_predictor(tiny_pose_checkpoint)) is PosePredictor
    assert type(load_window_predictor("marey-mini-rgb")) is Predictor
    with pytest.raises(UserError, match="it reads poses; marey-mini-rgb is one"):
        Predictor(load_checkpoint(tiny_pose_checkpoint))


def test_what_looks_at_single_clips_refuses_models_that_take_none() -> None:
    assert type(load_window_predictor("marey-mini-rgb")) is Predictor
    with pytest.raises(
        UserError, match="no classifier of clips, it answers 'marey predict --features'"
    ):
        load_window_predictor("marey-mini-gat")
