"""Stochastic depth."""

from __future__ import annotations

import torch

from marey.layers.drop_path import DropPath


def test_whole_clips_are_dropped_and_the_mean_stays():
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(4000, 3, 2))
    per_clip = out.flatten(1)
    assert (per_clip == per_clip[:, :1]).all()
    torch.testing.assert_close(per_clip[:, 0].unique(), torch.tensor([0.0, 1 / 0.75]))
    assert abs(out.mean() - 1) < 0.05


def test_evaluation_keeps_everything():
    branch = torch.randn(3, 2)
    assert torch.equal(DropPath(0.9).eval()(branch), branch)
    assert torch.equal(DropPath(0.0)(branch), branch)
