"""The paired stem: tokens from the convolutions alone, the image network only beside them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.layers.stem import build_stem
from marey.models import create_model
from marey.models.timesformer import with_stem

FRAMES = torch.randn(2, 3, 48, 72, generator=torch.Generator().manual_seed(0))


def test_tokens_do_not_depend_on_the_image_network():
    stem = build_stem("conv+efficientnet_lite0", 24, 16).eval()
    before = stem(FRAMES)
    with torch.no_grad():
        for parameter in stem.trunk.image.parameters():
            parameter.add_(1.0)
    assert before.shape == (2, 2 * 3, 16)
    assert torch.equal(before, stem(FRAMES))


def test_the_features_hold_both_networks_on_one_grid():
    stem = build_stem("conv+efficientnet_lite0", 24, 16).eval()
    features = stem.trunk(FRAMES).flatten(2).transpose(1, 2)
    assert features.shape == (2, 6, 16 + 192)
    assert stem.trunk.width == 16 + stem.image_width
    torch.testing.assert_close(stem.tokens(features), stem(FRAMES))
    image = (
        F.interpolate(stem.trunk.image(FRAMES), (2, 3), mode="bilinear").flatten(2).transpose(1, 2)
    )
    torch.testing.assert_close(stem.image_features(features), image)


def test_at_16_pixels_the_convolutions_are_those_of_the_plain_stem():
    torch.manual_seed(0)
    paired, plain = (
        build_stem("conv+efficientnet_lite0", 16, 16).eval(),
        build_stem("conv", 16, 16).eval(),
    )
    plain.convs.load_state_dict(paired.trunk.convs.state_dict())
    torch.testing.assert_close(
        paired.trunk.convolve(FRAMES[..., :64]), plain.convs(FRAMES[..., :64])
    )


def test_only_the_convolutions_learn():
    stem = build_stem("conv+efficientnet_lite0", 24, 16).train()
    statistics = stem.trunk.image._bn0.running_mean.clone()
    stem.trunk(FRAMES).sum().backward()
    assert torch.equal(statistics, stem.trunk.image._bn0.running_mean)
    assert all(parameter.grad is None for parameter in stem.trunk.image.parameters())
    assert all(parameter.grad is not None for parameter in stem.trunk.convs.parameters())


def test_stored_features_give_the_logits_of_the_clip():
    model = create_model(
        "sevitar",
        num_classes=3,
        num_frames=2,
        image_size=48,
        patch_size=24,
        embed_dim=16,
        depth=1,
        num_heads=2,
        stem="conv+efficientnet_lite0",
        label_hidden=[8],
        class_hidden=[8],
    ).eval()
    clip = torch.randn(2, 2, 3, 48, 48)
    features, mean = with_stem(model, clip)
    assert mean.shape == (2, 16 + 192)
    torch.testing.assert_close(model(features)["logits"], model(clip)["logits"])


def test_small_patches_are_refused():
    with pytest.raises(UserError, match="needs a patch_size of 16 or more, not 8"):
        build_stem("conv+efficientnet_lite0", 8, 16)
