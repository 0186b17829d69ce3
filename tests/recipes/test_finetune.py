from __future__ import annotations

from marey.recipes.finetune import finetune_folder
from marey.recipes.mini import mini_preprocess


def test_the_stem_and_the_linear_map_stay_as_they_are():
    config = finetune_folder()
    assert config.model.init_from == "marey-mini-rgb"
    assert config.model.freeze == ("patch_embed", "grid_head")


def test_a_clip_is_twice_as_long_as_that_of_the_bundled_model():
    sampling = finetune_folder().data.preprocess.sampling
    own = mini_preprocess().sampling
    assert sampling.num_frames / sampling.target_fps == 2 * own.num_frames / own.target_fps
    assert finetune_folder().augment.preprocess == finetune_folder().data.preprocess
