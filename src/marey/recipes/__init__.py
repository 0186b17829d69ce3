"""Every recipe under its name: a Python function that returns a whole `TrainConfig`, one file per paper."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from marey.errors import unknown_name

if TYPE_CHECKING:
    from marey.training.config import TrainConfig

RECIPES: dict[str, str] = {
    "direcformer_jester": "marey.recipes.direcformer",
    "direcformer_something_v2": "marey.recipes.direcformer",
    "direcformer_kinetics400": "marey.recipes.direcformer",
    "direcformer_mini": "marey.recipes.direcformer",
    "mini_stem": "marey.recipes.mini",
    "mini_mocap": "marey.recipes.mini",
    "mini_order": "marey.recipes.mini",
    "finetune_folder": "marey.recipes.finetune",
    "gat_youtube8m": "marey.recipes.gat",
    "gat_youtube8m_mini": "marey.recipes.gat",
    "gat_features": "marey.recipes.gat",
    "sevitar_ucf101": "marey.recipes.sevitar",
    "sevitar_hmdb51": "marey.recipes.sevitar",
    "sevitar_kinetics400": "marey.recipes.sevitar",
    "sevitar_folder": "marey.recipes.sevitar",
    "timesformer_hmdb_simp": "marey.recipes.hmdb_study",
    "vivit_hmdb_simp": "marey.recipes.hmdb_study",
    "distil_small": "marey.recipes.hmdb_study",
    "action_transformer_ava": "marey.recipes.action_transformer",
    "action_transformer_mini": "marey.recipes.action_transformer",
    "action_transformer_mini_proposals": "marey.recipes.action_transformer",
    "i3d_mini_mocap": "marey.recipes.action_transformer",
}
"""Recipe name -> the module that defines a function of that name."""


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
    return getattr(importlib.import_module(RECIPES[name]), name)()
