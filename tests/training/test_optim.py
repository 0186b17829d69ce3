"""Optimiser groups, and what does not train."""

from __future__ import annotations

import pytest
from torch import nn

from marey.errors import UserError
from marey.models import create_model
from marey.training.config import OptimConfig
from marey.training.optim import build_optimizer, freeze, parameter_groups, rate_warning


def tiny() -> nn.Module:
    return create_model(
        "timesformer",
        num_classes=3,
        num_frames=2,
        image_size=8,
        patch_size=4,
        embed_dim=8,
        depth=2,
        num_heads=2,
    )


def group_of(model: nn.Module, name: str, config: OptimConfig) -> dict:
    parameter = model.get_parameter(name)
    return next(
        group
        for group in parameter_groups(model, config)
        if any(p is parameter for p in group["params"])
    )


def test_layer_decay_by_hand() -> None:
    model, config = tiny(), OptimConfig(layer_decay=0.5)
    names = (
        "patch_embed.proj.weight",
        "pos_embed",
        "blocks.0.attn.qkv.weight",
        "blocks.1.mlp.fc1.weight",
        "head.weight",
    )
    scales = {name: group_of(model, name, config)["scale"] for name in names}
    assert scales == {
        "patch_embed.proj.weight": 0.125,
        "pos_embed": 0.125,
        "blocks.0.attn.qkv.weight": 0.25,
        "blocks.1.mlp.fc1.weight": 0.5,
        "head.weight": 1.0,
    }


def test_biases_norms_and_tokens_do_not_decay() -> None:
    model, config = tiny(), OptimConfig(weight_decay=0.1)
    assert group_of(model, "head.weight", config)["weight_decay"] == 0.1
    for name in ("head.bias", "norm.weight", "cls_token", "pos_embed", "time_embed"):
        assert group_of(model, name, config)["weight_decay"] == 0.0
    everything = OptimConfig(weight_decay=0.1, decay_all=True)
    assert group_of(model, "head.bias", everything)["weight_decay"] == 0.1


def test_every_trainable_parameter_is_in_one_group() -> None:
    model = tiny()
    freeze(model, ("patch_embed", "blocks.0"))
    inside = [
        p
        for group in parameter_groups(model, OptimConfig(layer_decay=0.7))
        for p in group["params"]
    ]
    assert len(inside) == len({id(p) for p in inside})
    assert {id(p) for p in inside} == {id(p) for p in model.parameters() if p.requires_grad}


def test_freezing_all_but_the_heads() -> None:
    model = tiny()
    freeze(model, ("*",))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]


def test_freezing_what_is_not_there_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"no parameter starts with 'stem' \(the model has: blocks, cls_token, head"
    ):
        freeze(tiny(), ("stem",))


def test_freezing_everything_is_an_error() -> None:
    model = tiny()
    freeze(model, ("*", "head"))
    with pytest.raises(UserError, match="leaves no parameter to train"):
        build_optimizer(model, OptimConfig())


def test_group_rates_are_the_peak_times_their_scale() -> None:
    optimizer = build_optimizer(tiny(), OptimConfig(lr=0.1, name="sgd", layer_decay=0.5))
    assert sorted({group["lr"] for group in optimizer.param_groups}) == pytest.approx(
        [0.0125, 0.025, 0.05, 0.1]
    )


def test_adam_at_the_rate_of_sgd_is_warned_about() -> None:
    assert "is a rate for SGD; adam usually needs" in str(
        rate_warning(OptimConfig(name="adam", lr=0.0035))
    )
    assert rate_warning(OptimConfig(name="sgd", lr=0.0035)) is None
    assert rate_warning(OptimConfig(name="adam")) is None
