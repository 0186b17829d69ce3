"""The recipes everyone reaches for."""

from __future__ import annotations

import pytest

from marey.errors import UserError
from marey.recipes import RECIPES, get_recipe
from marey.training.config import TrainConfig, override
from marey.training.tasks import TASKS


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_a_whole_configuration_under_its_name(name: str) -> None:
    config = get_recipe(name)
    assert config.recipe == name
    assert config.objective.task in TASKS
    assert TrainConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_a_setting_changes_a_recipe() -> None:
    assert override(get_recipe("mini_mocap"), ["train.epochs=1"]).train.epochs == 1.0


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match="unknown recipe 'sevitar_foldr'; did you mean 'sevitar_folder'"
    ):
        get_recipe("sevitar_foldr")
