"""Stems: equal to the convolution they replace, the right grid, frozen statistics, clear errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.errors import UserError
from marey.layers.patch_embed import ConvStem, LinearPatchEmbed
from marey.layers.stem import build_stem


def test_the_matrix_product_equals_the_convolution():
    torch.manual_seed(0)
    stem = LinearPatchEmbed(4, 10)
    frames = torch.randn(3, 3, 8, 12)
    torch.testing.assert_close(stem(frames), stem.proj(frames).flatten(2).transpose(1, 2))


def test_tokens_run_row_by_row():
    stem = LinearPatchEmbed(2, 1)
    nn.init.constant_(stem.proj.weight, 1 / 12)
    nn.init.zeros_(stem.proj.bias)
    frame = (
        torch.arange(4.0)
        .view(1, 1, 2, 2)
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
        .expand(1, 3, 4, 4)
    )
    torch.testing.assert_close(stem(frame).flatten(), torch.arange(4.0))


@pytest.mark.parametrize("stem", ["linear", "conv", "efficientnet_lite0"])
def test_every_stem_gives_one_token_per_patch(stem):
    assert build_stem(stem, 16, 24)(torch.randn(2, 3, 32, 64)).shape == (2, 2 * 4, 24)


def test_the_conv_stem_halves_once_per_power_of_two():
    stem = ConvStem(16, 64)
    assert [module.stride for module in stem.convs if isinstance(module, nn.Conv2d)] == [(2, 2)] * 4
    assert [module.out_channels for module in stem.convs if isinstance(module, nn.Conv2d)] == [
        8,
        16,
        32,
        64,
    ]


def test_frozen_statistics_stay_while_training():
    for freeze in (True, False):
        stem = build_stem("conv", 4, 16, freeze_batch_norm=freeze).train()
        before = stem.convs[1].running_mean.clone()
        stem(torch.randn(4, 3, 8, 8) + 2)
        assert torch.equal(before, stem.convs[1].running_mean) is freeze


def test_messages():
    with pytest.raises(UserError, match="power of two from 2 on, not 14"):
        build_stem("conv", 14, 8)
    with pytest.raises(
        UserError, match="unknown stem 'resnet'; choose one of linear, conv, efficientnet_lite0"
    ):
        build_stem("resnet", 16, 8)
    with pytest.raises(UserError, match="stage 2 does not have the stride of patch_size 16"):
        build_stem("efficientnet_lite0", 16, 8, stage=2)
