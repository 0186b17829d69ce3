"""Configurations of older versions: what they say today, with one notice."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from marey.checkpoints.sources import WEIGHTS_FOLDER
from marey.errors import UserError
from marey.training.config import TrainConfig
from marey.training.data_config import FeatureCacheConfig
from marey.training.migrate import migrate

BACKWARDS = ["jump backwards", "walk backwards"]


def old(objective: dict[str, Any], data: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration as it was written before objectives were sums of terms."""
    settings = {
        "label_smoothing": 0.05,
        "class_weights": "none",
        "mixup_alpha": 0.0,
        "cutmix_alpha": 0.0,
        "mix_probability": 1.0,
        "arguments": {},
    }
    return {
        "recipe": "old",
        "data": {"path": "clips", "arguments": data or {}},
        "objective": {**settings, **objective},
    }


def read(values: dict[str, Any]) -> TrainConfig:
    """Migrate with exactly one notice."""
    with pytest.warns(UserWarning, match="configuration of an older version") as notices:
        config = TrainConfig.from_dict(values)
    assert len(notices) == 1
    return config


def test_training_on_pixels_started_from_the_model_that_is_now_called_rgb() -> None:
    values = old({"kind": "classification"}) | {"model": {"init_from": "marey-mini"}}
    assert read(values).model.init_from == "marey-mini-rgb"

    poses = TrainConfig.from_dict(
        {"recipe": "new", "model": {"init_from": "marey-mini"}, "objective": {"task": "poses"}}
    )
    assert poses.model.init_from == "marey-mini"


def test_three_objectives_around_each_other_become_weights() -> None:
    arguments = {
        "inner": "label_embedding",
        "base": "order",
        "label_loss": "cosine",
        "num_permutations": 500,
        "backwards": BACKWARDS,
        "variants": 1,
        "order_from": 0.7,
    }
    weights = {"class": 1.0, "label": 0.5, "order": 0.1, "guided": 0.25}
    config = read(old({"kind": "frozen_stem", "weights": weights, "arguments": arguments}))
    objective = config.objective
    assert (objective.task, objective.weights) == ("clips", weights)
    assert objective.start == {"order": 0.7, "guided": 0.7}
    assert objective.classification.label_smoothing == 0.05
    assert (objective.label.loss, objective.label.stage_shares) == ("cosine", None)
    assert (objective.order.num_permutations, objective.order.backwards) == (500, tuple(BACKWARDS))
    assert config.data.feature_cache == FeatureCacheConfig(variants=1)


def test_staged_training_and_unseen_classes_keep_their_meaning() -> None:
    arguments = {"training": "staged", "label_source": "names.json"}
    config = read(
        old(
            {
                "kind": "label_embedding",
                "weights": {"class": 1.0, "label": 1.0},
                "arguments": arguments,
            },
            {"unseen_classes": ["hug"]},
        )
    )
    assert config.objective.label.stage_shares == (0.5, 0.25, 0.25)
    assert config.objective.label.source == "names.json"
    assert config.data.unseen_classes == ("hug",)


def test_an_order_model_trained_on_classes_alone_keeps_its_order_head() -> None:
    assert read(old({"kind": "order"})).objective.weights == {"class": 1.0, "order": 0.0}


@pytest.mark.parametrize(
    ("adversarial", "weights"),
    [
        ({}, {"class": 1.0, "adversarial": 1.0}),
        ({"attention": "js"}, {"class": 1.0, "adversarial": 1.0, "attention": 0.01}),
        (
            {"alpha": 0.5, "attention": "frobenius", "beta": 0.1},
            {"class": 1.0, "adversarial": 0.5, "attention": 0.1},
        ),
    ],
)
def test_adversarial_training_becomes_two_terms(
    adversarial: dict[str, Any], weights: dict[str, float]
) -> None:
    config = read(
        old(
            {"kind": "features", "arguments": {"adversarial": {"eps": 2.0, **adversarial}}},
            {"stream": True, "features": {"rgb": 128}},
        )
    )
    assert (config.objective.task, config.objective.weights) == ("features", weights)
    assert config.objective.adversarial.eps == 2.0
    assert (config.data.features.stream, config.data.features.widths) == (True, {"rgb": 128})


def test_a_detector_s_proposals_alone_are_two_weights() -> None:
    weights = {"class": 1.0, "box": 1.0, "rpn_objectness": 1.0, "rpn_box": 4.0}
    config = read(
        old(
            {
                "kind": "detection",
                "weights": weights,
                "arguments": {"only": "proposals", "boxes": "truth"},
            },
            {"variants": 3, "mosaic": "clips"},
        )
    )
    assert config.objective.weights == {"rpn_objectness": 1.0, "rpn_box": 4.0}
    assert config.objective.detection.boxes == "truth"
    assert config.data.detection.mosaic == "clips"
    assert config.data.feature_cache == FeatureCacheConfig(variants=3)


def test_distillation_keeps_its_teacher() -> None:
    config = read(
        old(
            {
                "kind": "distillation",
                "weights": {"class": 0.5, "teacher": 0.5},
                "arguments": {"teacher": "run/best", "temperature": 3.0},
            }
        )
    )
    assert (config.objective.teacher.checkpoint, config.objective.teacher.temperature) == (
        "run/best",
        3.0,
    )


def test_an_argument_that_never_was_is_still_a_mistake() -> None:
    with (
        pytest.warns(UserWarning, match="older version"),
        pytest.raises(UserError, match="'arguments'"),
    ):
        TrainConfig.from_dict(old({"kind": "classification", "arguments": {"colour": "blue"}}))


def test_a_configuration_of_today_passes_unchanged() -> None:
    values = TrainConfig().to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert migrate(values) == values


@pytest.mark.parametrize(
    "file",
    sorted(WEIGHTS_FOLDER.rglob("config.json")),
    ids=lambda file: file.parent.relative_to(WEIGHTS_FOLDER).as_posix(),
)
def test_bundled_models_hold_configurations_of_today(file) -> None:
    saved = json.loads(file.read_text()).get("extra", {}).get("config")
    if saved is None:
        pytest.skip("its configuration does not travel with it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrainConfig.from_dict(saved)
