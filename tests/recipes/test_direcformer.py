from __future__ import annotations

import pytest

from marey.recipes.direcformer import (
    direcformer_jester,
    direcformer_kinetics400,
    direcformer_mini,
    direcformer_something_v2,
)


@pytest.mark.parametrize(
    "recipe", [direcformer_jester, direcformer_something_v2, direcformer_kinetics400]
)
def test_the_paper_s_optimiser_and_attention(recipe):
    config = recipe()
    optim = config.optim
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.005, 0.9, 1e-4)
    assert (optim.schedule, optim.milestones, optim.gamma) == ("step", (11, 14), 0.1)
    assert (config.train.epochs, config.train.batch_size) == (30, 64)
    assert config.model.arguments == {"time_attention": "cosine", "space_attention": "cosine"}
    assert config.objective.weights == {"class": 1.0, "order": 1.0, "guided": 1.0}
    assert config.data.preprocess.crops == 3


def test_only_kinetics_mirrors_and_strides():
    jester, something, kinetics = (
        direcformer_jester(),
        direcformer_something_v2(),
        direcformer_kinetics400(),
    )
    assert [c.augment.flip for c in (jester, something, kinetics)] == [0.0, 0.0, 0.5]
    assert [c.data.preprocess.sampling.kind for c in (jester, something, kinetics)] == [
        "segments",
        "segments",
        "uniform",
    ]
    assert kinetics.data.preprocess.sampling.stride_frames == 32
    assert kinetics.augment.preprocess == kinetics.data.preprocess


def test_the_small_recipe_weighs_the_guided_loss_ten_times():
    config = direcformer_mini()
    assert config.objective.weights == {"class": 1.0, "order": 1.0, "guided": 10.0}
    assert config.model.arguments["depth"] == 2
