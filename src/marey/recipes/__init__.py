"""Every recipe by name: a function that returns a whole `TrainConfig`, one file per paper."""

from __future__ import annotations

from collections.abc import Callable

from marey.errors import unknown_name
from marey.recipes import action_transformer, direcformer, gat, hmdb_study, mini, sevitar
from marey.training.config import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        direcformer.direcformer_jester,
        direcformer.direcformer_something_v2,
        direcformer.direcformer_kinetics400,
        direcformer.direcformer_mini,
        direcformer.direcformer_poses,
        mini.mini_pose,
        mini.arrow_of_time,
        mini.arrow_tune,
        mini.mini_stem,
        mini.mini_mocap,
        mini.mini_order,
        gat.gat_youtube8m,
        gat.gat_youtube8m_mini,
        gat.gat_features,
        sevitar.sevitar_ucf101,
        sevitar.sevitar_hmdb51,
        sevitar.sevitar_kinetics400,
        sevitar.sevitar_folder,
        hmdb_study.timesformer_hmdb_simp,
        hmdb_study.vivit_hmdb_simp,
        hmdb_study.distil_small,
        action_transformer.action_transformer_ava,
        action_transformer.action_transformer_mini,
        action_transformer.action_transformer_mini_proposals,
        action_transformer.i3d_mini_mocap,
    )
}
"""The name `marey train` takes -> the function."""


def list_recipes() -> list[str]:
    """Return the names `marey train` takes, sorted."""
    return sorted(RECIPES)


def get_recipe(name: str) -> TrainConfig:
    """Return the configuration a recipe describes.

    Raises:
        UserError: if the name is unknown.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]()
