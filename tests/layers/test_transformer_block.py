"""Blocks: the order of attention and MLP, the temporal projection folded, and what starts at
zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.layers.attention import SoftmaxAttention
from marey.layers.transformer_block import (
    MLP,
    DividedBlock,
    JointBlock,
    fold_temporal_projection,
    initialise_linear,
)

SHARED = {"qkv_bias": True, "dropout": 0.0, "attention_dropout": 0.0, "drop_path": 0.0}


def divided(**more) -> DividedBlock:
    torch.manual_seed(0)
    return DividedBlock(
        16,
        2,
        2.0,
        time_attention=SoftmaxAttention,
        attention=SoftmaxAttention,
        **{"cls_in_time": False, **SHARED, **more},
    )


def tokens(B: int = 2, T: int = 3, N: int = 4) -> torch.Tensor:
    return torch.randn(B, 1 + T * N, 16, generator=torch.Generator().manual_seed(1))


def test_a_joint_block_is_attention_then_mlp_with_norms_before():
    torch.manual_seed(0)
    block = JointBlock(16, 2, 2.0, attention=SoftmaxAttention, **SHARED).eval()
    given = tokens()
    after_attention = given + block.attn(block.norm1(given))[0]
    expected = after_attention + block.mlp(block.norm2(after_attention))
    torch.testing.assert_close(block(given, 3)[0], expected)


def test_a_divided_block_with_a_temporal_projection_of_zero_is_an_image_block():
    block = divided().eval()
    nn.init.zeros_(block.temporal_fc.weight)
    nn.init.zeros_(block.temporal_fc.bias)
    given = tokens()
    out, _ = block.attn.over_space(block.norm1(given), 3)
    after_space = given + out
    torch.testing.assert_close(
        block(given, 3)[0], after_space + block.mlp(block.norm2(after_space))
    )


@pytest.mark.parametrize("cls_in_time", [False, True])
def test_the_folded_projection_equals_the_two_layers(cls_in_time):
    block = divided(cls_in_time=cls_in_time).eval()
    with torch.enable_grad():
        slow = block(tokens(B=1, T=2, N=1), 2)[0]  # few tokens: two products
    with torch.no_grad():
        assert fold_temporal_projection(nn.Sequential(block)) == 1
        torch.testing.assert_close(block(tokens(B=1, T=2, N=1), 2)[0], slow)


def test_a_changed_weight_is_folded_anew():
    block = divided().eval()
    with torch.no_grad():
        before = block(tokens(), 3)[0]
        block.temporal_fc.weight.mul_(3)
        assert not torch.allclose(block(tokens(), 3)[0], before)


def test_return_attention_gives_the_axes_of_the_docstring():
    _, time_weights, space_weights = divided(cls_in_time=True)(tokens(), 3, True)
    assert time_weights.shape == (2, 4, 2, 3, 4)
    assert space_weights.shape == (2, 3, 2, 5, 5)


def test_linear_layers_start_narrow_and_without_bias():
    part = MLP(64, 128)
    initialise_linear(part)
    assert float(part.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(part.fc1.bias.detach().abs().max()) == 0
