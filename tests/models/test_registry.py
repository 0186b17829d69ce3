"""The names of the architectures, and the task of every model."""

from __future__ import annotations

import pytest

from marey.errors import UserError
from marey.models import MODELS, argument_names, list_models, model_class


def test_a_name_is_its_class():
    assert list_models() == sorted(MODELS)
    assert model_class("gat") is MODELS["gat"]
    with pytest.raises(UserError, match="unknown model 'timesfromer'; did you mean 'timesformer'"):
        model_class("timesfromer")


def test_every_model_names_its_task():
    tasks = {name: model_type.task for name, model_type in MODELS.items()}
    assert {name for name, task in tasks.items() if task != "clips"} == {
        "gat",
        "action_transformer",
        "arrow_of_time",
    }
    assert (tasks["gat"], tasks["action_transformer"]) == ("features", "detection")


def test_argument_names_are_what_the_constructor_takes():
    assert argument_names("i3d") == ["num_classes", "width", "dropout", "frozen_norm"]
    assert {"num_classes", "num_orders", "stem"} <= set(argument_names("direcformer"))
    assert "num_orders" not in argument_names("timesformer")
