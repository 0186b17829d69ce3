from __future__ import annotations

import pytest

from marey.recipes.mini import mini_augment, mini_mocap, mini_order, mini_preprocess, mini_stem
from marey.synthetic.motion import list_actions, reversed_name


def test_all_three_see_the_same_clips():
    assert mini_stem().data.preprocess == mini_mocap().data.preprocess == mini_preprocess()
    assert mini_order().data.preprocess == mini_preprocess()
    sampling = mini_preprocess().sampling
    assert (sampling.num_frames, sampling.target_fps, sampling.stride_frames) == (8, 8.0, 1)


def test_a_clip_played_backwards_takes_the_name_of_its_reversal():
    names = list_actions()
    pairs = mini_augment(mini_preprocess()).reverse_pairs
    assert pairs
    for first, second in pairs.items():
        assert reversed_name(names[first]) == names[second]
        assert pairs[second] == first


@pytest.mark.parametrize("recipe", [mini_stem, mini_mocap, mini_order])
def test_no_clip_is_mirrored(recipe):
    assert recipe().augment.flip == 0.0
