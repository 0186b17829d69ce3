from __future__ import annotations

import pytest
import torch
from torch import nn

from marey.layers.batch_statistics import recalibrate_batch_statistics
from marey.layers.i3d_blocks import freeze_batch_statistics


def test_statistics_are_the_average_over_batches_and_the_mode_is_kept():
    norm = nn.BatchNorm1d(1, momentum=0.01).eval()
    norm.running_mean.fill_(50.0)
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]])]
    assert recalibrate_batch_statistics(norm, norm, batches) == 1
    assert float(norm.running_mean) == pytest.approx(3.5)  # of 1 and 6
    assert float(norm.running_var) == pytest.approx(5.0)  # of 2 and 8
    assert norm.momentum == 0.01
    assert not norm.training


def test_frozen_norms_are_left_alone_and_no_batch_is_read():
    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            freeze_batch_statistics(self)
            return self

    def fail():
        raise AssertionError("a batch was read")
        yield

    model = Frozen(nn.BatchNorm1d(1))
    assert recalibrate_batch_statistics(model, model, fail()) == 0


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="give at least one"):
        recalibrate_batch_statistics(nn.BatchNorm1d(1), print, [])
