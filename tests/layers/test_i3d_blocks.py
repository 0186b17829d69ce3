from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from marey.layers.i3d_blocks import (
    ConvUnit,
    InceptionBlock,
    MaxPoolSame,
    freeze_batch_statistics,
    same_padding,
)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        (224, 7, 2, (2, 3)),
        (225, 7, 2, (3, 3)),
        (112, 3, 2, (0, 1)),
        (7, 2, 2, (0, 1)),
        (8, 2, 2, (0, 0)),
        (5, 3, 1, (1, 1)),
        (1, 2, 2, (0, 1)),
    ],
)
def test_padding_of_one_axis_by_hand(size, kernel, stride, pads):
    assert same_padding(size, kernel, stride) == pads


def test_sizes_shrink_by_the_stride_rounded_up():
    unit = ConvUnit(3, 4, (7, 7, 7), (2, 2, 2))
    for size in (5, 6, 7, 9):
        out = unit(torch.randn(1, 3, size, size, size))
        assert out.shape == (1, 4, *[math.ceil(size / 2)] * 3)


def test_a_convolution_equals_the_sum_written_naively():
    unit = ConvUnit(2, 1, (3, 3, 3), (2, 2, 2)).eval()
    features = torch.randn(1, 2, 4, 5, 6)
    padded = F.pad(features, (0, 1, 1, 1, 0, 1))  # w even: back only; h odd: both; t even
    out = unit(features)
    for t in range(2):
        for h in range(3):
            for w in range(3):
                window = padded[0, :, 2 * t : 2 * t + 3, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
                value = (window * unit.conv3d.weight[0]).sum() / math.sqrt(1 + 1e-3)
                assert out[0, 0, t, h, w].item() == pytest.approx(max(value.item(), 0), abs=1e-5)


def test_max_pool_pads_with_zeros():
    out = MaxPoolSame((3, 3, 3), (2, 2, 2))(torch.full((1, 1, 2, 2, 2), -1.0))
    assert out.item() == 0  # the port's pad of zeros wins over -1


def test_block_concatenates_its_branches():
    block = InceptionBlock(4, (2, 2, 3, 1, 2, 1))
    assert block(torch.randn(2, 4, 3, 5, 5)).shape == (2, 8, 3, 5, 5)
    assert block.out_channels == 8


def test_frozen_statistics_stay_while_scale_and_shift_learn():
    unit = ConvUnit(2, 3)
    unit.train()
    freeze_batch_statistics(unit)
    unit(torch.randn(2, 2, 2, 4, 4) + 5).sum().backward()
    assert unit.bn.running_mean.abs().sum() == 0
    assert unit.bn.weight.grad is not None
