from __future__ import annotations

import pytest

from marey.recipes import get_recipe
from marey.recipes.action_transformer import DETECTION_WEIGHTS, action_transformer_ava


def test_the_paper_s_settings():
    config = action_transformer_ava()
    optim = config.optim
    assert (optim.name, optim.lr, optim.schedule, optim.warmup, optim.warmup_start) == (
        "sgd",
        0.1,
        "cosine",
        1000,
        0.1,
    )
    assert (config.train.max_steps, config.train.batch_size) == (500_000, 30)
    preprocess = config.data.preprocess
    assert (preprocess.sampling.num_frames, preprocess.image_size, preprocess.resize_mode) == (
        64,
        400,
        "stretch",
    )
    assert config.model.arguments == {"head": "tx", "query": "highres", "background": True}
    assert config.objective.weights == DETECTION_WEIGHTS


@pytest.mark.parametrize(
    "name", ["action_transformer_mini", "action_transformer_mini_proposals", "i3d_mini_mocap"]
)
def test_the_small_recipes_see_8_frames(name):
    assert get_recipe(name).data.preprocess.sampling.num_frames == 8
