"""The models of a comparison: where they come from, and how their classes are matched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.evaluation.candidates import load_candidate, match_classes


def test_classes_are_matched_by_name_whatever_their_spelling() -> None:
    data_class_of, logit_of = match_classes(
        "m", ["Cart Wheel", "back_flip", "walk"], ["backflip", "cartwheel"]
    )
    assert data_class_of.tolist() == [1, 0, -1]
    assert logit_of.tolist() == [1, 0]
    with pytest.raises(UserError, match="does not know the class 'swim'"):
        match_classes("m", ["walk"], ["swim"])


def test_a_callable_that_is_not_there_is_said(data: DatasetIndex) -> None:
    with pytest.raises(UserError, match="no module 'nowhere_at_all'"):
        load_candidate("nowhere_at_all:model", data.class_names)
    with pytest.raises(UserError, match="did you mean 'brightness_of'"):
        load_candidate("toy_models:brightnes_of", data.class_names)


def test_a_bare_function_has_no_gradients_and_returns_a_dict_like_a_network(
    data: DatasetIndex,
) -> None:
    function = load_candidate("toy_models:brightness_of", data.class_names)
    network = load_candidate("toy_models:brightness_network", data.class_names)
    assert (function.has_gradients, network.has_gradients) == (False, True)
    assert isinstance(function.model, nn.Module)
    clips = torch.rand(2, 4, 3, 32, 32)
    logits = function.model(clips)["logits"]
    torch.testing.assert_close(network.model(clips)["logits"], logits.flip(1))
    assert network.data_class_of.tolist() == [1, 0]
