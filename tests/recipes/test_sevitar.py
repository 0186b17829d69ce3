from __future__ import annotations

import pytest

from marey.recipes import get_recipe


@pytest.mark.parametrize("name", ["sevitar_ucf101", "sevitar_hmdb51", "sevitar_kinetics400"])
def test_the_paper_s_settings(name):
    config = get_recipe(name)
    assert (config.optim.name, config.optim.lr, config.train.batch_size) == ("sgd", 0.002, 8)
    assert config.model.name == "sevitar"
    assert config.objective.weights == {"class": 1.0, "label": 1.0}
    assert (config.data.preprocess.sampling.num_frames, config.data.preprocess.image_size) == (
        8,
        224,
    )


def test_kinetics_is_cut_to_the_paper_s_80000_videos():
    assert get_recipe("sevitar_kinetics400").data.limit == 80_000
    assert get_recipe("sevitar_ucf101").data.limit is None


def test_a_folder_starts_from_the_bundled_weights():
    config = get_recipe("sevitar_folder")
    assert config.model.init_from == "marey-mini-rgb"
    assert config.objective.weights == {"class": 1.0, "label": 0.5}
