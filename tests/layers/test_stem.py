"""Stems by name: each turns frames into a grid of tokens, and some keep features apart."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.layers.feature_stem import FeatureStem
from marey.layers.stem import PICTURE_STEMS, build_stem


@pytest.mark.parametrize("name", PICTURE_STEMS)
def test_a_stem_gives_one_token_per_patch(name):
    stem = build_stem(name, 16, 24).eval()
    with torch.no_grad():
        assert stem(torch.randn(2, 3, 32, 48)).shape == (2, 6, 24)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "conv+efficientnet_lite0"])
def test_tokens_of_stored_features_are_those_of_the_frames(name):
    stem = build_stem(name, 16, 24).eval()
    assert isinstance(stem, FeatureStem)
    frames = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = stem.features(frames)
        torch.testing.assert_close(stem.tokens(features), stem(frames))
    assert stem.image_features(features).shape == (2, 4, stem.image_width)


def test_an_unknown_stem_is_named():
    with pytest.raises(UserError, match="unknown stem 'patch'; choose one of linear, conv"):
        build_stem("patch", 16, 24)


@pytest.mark.parametrize("name", ["conv", "efficientnet_lite0"])
def test_frozen_norm_keeps_its_statistics_in_training(name):
    frozen = build_stem(name, 16, 24, freeze_batch_norm=True).train()
    norms = [module for module in frozen.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    frozen(torch.randn(2, 3, 32, 32))
    assert norms
    assert not any(norm.training for norm in norms)
    assert all(
        torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True)
    )
    assert any(
        norm.training
        for norm in build_stem(name, 16, 24).train().modules()
        if isinstance(norm, torch.nn.BatchNorm2d)
    )
