"""The settings of TimeSformer's family travel whole: from keyword arguments, into checkpoints and
back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from marey.errors import UserError
from marey.models import argument_names, create_model
from marey.models.direcformer import DirecFormer, DirecFormerConfig
from marey.models.sevitar import SeViTARConfig
from marey.models.timesformer import TimeSformer
from marey.models.timesformer_config import TimeSformerConfig

TINY = {
    "num_classes": 3,
    "num_frames": 2,
    "image_size": 16,
    "patch_size": 8,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}


@pytest.mark.parametrize("name", ["timesformer", "direcformer", "sevitar", "grid_sevitar"])
def test_the_arguments_of_a_model_build_it_again_through_json(name):
    model = create_model(name, **TINY)
    arguments = json.loads(json.dumps(model.arguments))
    assert arguments == model.arguments
    assert set(arguments) == set(argument_names(name))
    again = create_model(name, **arguments)
    assert again.config == model.config
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


def test_a_config_and_its_fields_build_the_same_model():
    config = DirecFormerConfig(**TINY, num_orders=4)
    assert DirecFormer(config).config == DirecFormer(**TINY, num_orders=4).config == config


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TimeSformerConfig(**TINY).depth = 3


def test_defaults_are_those_of_each_paper():
    assert TimeSformerConfig(**TINY).time_attention == "softmax"
    assert (
        DirecFormerConfig(**TINY).time_attention
        == DirecFormerConfig(**TINY).space_attention
        == "cosine"
    )
    assert DirecFormerConfig(**TINY).cls_in_time
    assert SeViTARConfig(**TINY, label_hidden=[5]).label_hidden == (5,)


def test_the_grid_counts_patches():
    assert TimeSformerConfig(num_classes=1, image_size=96, patch_size=32).grid == (3, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 20}, "image_size 20 is no multiple of patch_size 8; choose 16"),
        (
            {"attention": "dividied"},
            "attention is 'dividied', but must be one of divided, joint, space",
        ),
        ({"time_attention": "cos"}, "time_attention is 'cos', but must be one of softmax, cosine"),
        ({"attention": "joint", "time_attention": "cosine"}, "give both the same kind"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        TimeSformer(**TINY | settings)


def test_unknown_and_missing_arguments_are_one_line():
    with pytest.raises(
        UserError, match="argument of model 'direcformer' 'num_order'; did you mean 'num_orders'"
    ):
        create_model("direcformer", **TINY, num_order=4)
    with pytest.raises(
        UserError, match="model 'timesformer': .* missing 1 required .* 'num_classes'"
    ):
        create_model("timesformer")
