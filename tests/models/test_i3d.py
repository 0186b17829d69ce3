from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from marey.errors import UserError
from marey.models import create_model
from marey.models.i3d import I3D, I3DTail, I3DTrunk

LAYERS = [
    "Conv3d_1a_7x7",
    "MaxPool3d_2a_3x3",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "MaxPool3d_3a_3x3",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool3d_4a_3x3",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool3d_5a_2x2",
    "Mixed_5b",
    "Mixed_5c",
]


def naive_i3d(weights, clip, window):
    """The public port written flat, from weights under the public names; clip (B, 3, T, H, W)."""

    def pad(x, kernel, stride):
        pads = []
        for size, k, d in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
            total = max(k - d, 0) if size % d == 0 else max(k - size % d, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads)

    def conv(name, x, kernel=(1, 1, 1), stride=(1, 1, 1)):
        x = F.conv3d(pad(x, kernel, stride), weights[f"{name}.conv3d.weight"], stride=stride)
        norm = [
            weights[f"{name}.bn.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return F.relu(F.batch_norm(x, *norm, eps=1e-3))

    def pool(x, kernel, stride):
        return F.max_pool3d(pad(x, kernel, stride), kernel, stride)

    pools = {
        "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
        "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
        "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
        "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    }
    convs = {
        "Conv3d_1a_7x7": ((7, 7, 7), (2, 2, 2)),
        "Conv3d_2b_1x1": ((1, 1, 1), (1, 1, 1)),
        "Conv3d_2c_3x3": ((3, 3, 3), (1, 1, 1)),
    }
    x, sizes = clip, {}
    for name in LAYERS:
        if name in pools:
            x = pool(x, *pools[name])
        elif name in convs:
            x = conv(name, x, *convs[name])
        else:
            x = torch.cat(
                [
                    conv(f"{name}.b0", x),
                    conv(f"{name}.b1b", conv(f"{name}.b1a", x), (3, 3, 3)),
                    conv(f"{name}.b2b", conv(f"{name}.b2a", x), (3, 3, 3)),
                    conv(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1))),
                ],
                dim=1,
            )
        sizes[name] = tuple(x.shape[1:])
    pooled = F.avg_pool3d(x, window, stride=1)
    return F.conv3d(pooled, weights["logits.conv3d.weight"], weights["logits.conv3d.bias"]).mean(
        (3, 4)
    ), sizes


def randomised(model, seed=0):
    """Deterministic random weights, batch norm statistics included."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.ndim > 1:  # keeps the signal's size through the layers
            value.copy_(
                torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
            )
        elif value.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "bn.weight")) else -0.3
            value.copy_(torch.rand(value.shape, generator=generator) + low)
    return model.eval()


def test_parameter_counts_are_the_published_ones():
    model = I3D()
    assert sum(p.numel() for p in model.parameters()) == 12_697_264
    assert sum(p.numel() for p in model.trunk.parameters()) == 7_528_256
    assert sum(p.numel() for p in model.tail.parameters()) == 1_974_272 + 2_784_736


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(16, 112, 112), (9, 71, 83), (7, 33, 97), (16, 225, 224)]
)
def test_logits_equal_the_naive_port_at_even_and_odd_sizes(public_i3d_names, frames, height, width):
    model = randomised(I3D(num_classes=5, width=0.25))
    clip = (
        torch.rand(1, frames, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    )
    with torch.no_grad():
        out = model(clip)
        features = model.tail(model.trunk(clip.transpose(1, 2)))
        window = [min(a, b) for a, b in zip(features.shape[2:], (2, 7, 7), strict=True)]
        per_step, _ = naive_i3d(public_i3d_names(model.state_dict()), clip.transpose(1, 2), window)
    torch.testing.assert_close(out["logits_per_step"], per_step, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(out["logits"], per_step.mean(2), rtol=1e-4, atol=1e-4)


def test_the_trunk_divides_time_by_4_and_space_by_16():
    trunk = I3DTrunk(0.25)
    assert trunk(torch.randn(1, 3, 16, 112, 112)).shape == (1, 208, 4, 7, 7)
    assert trunk(torch.randn(1, 3, 9, 33, 50)).shape == (1, 208, 3, 3, 4)
    assert I3DTail(208, 0.25)(torch.randn(2, 208, 4, 7, 7)).shape == (2, 256, 2, 4, 4)


def test_frozen_norm_survives_train_and_gradients_reach_the_first_layer():
    model = create_model("i3d", num_classes=3, width=0.125, frozen_norm=True).train()
    assert not model.trunk.Conv3d_1a_7x7.bn.training
    model(torch.randn(2, 8, 3, 32, 32))["logits"].sum().backward()
    assert model.trunk.Conv3d_1a_7x7.conv3d.weight.grad.abs().sum() > 0
    assert model.arguments["width"] == 0.125


def test_logits_do_not_depend_on_the_batch_but_on_frame_order():
    model = randomised(I3D(num_classes=3, width=0.125))
    clips = torch.randn(2, 8, 3, 32, 32)
    with torch.no_grad():
        together = model(clips)["logits"]
        torch.testing.assert_close(model(clips[:1])["logits"], together[:1], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(clips.flip(1))["logits"], together)


def test_width_must_be_positive():
    with pytest.raises(UserError, match="width must be positive, got 0"):
        I3D(width=0)
