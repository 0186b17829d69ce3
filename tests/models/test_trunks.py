"""Trunks of the detector: what each makes of a clip, and which parts learn."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.models.trunks import TRUNKS, FrameTrunk

ARGUMENTS = {
    "i3d": {"width": 0.125},
    "efficientnet_lite0": {"channels": 16},
    "timesformer": {"num_frames": 8, "image_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2},
}
SPACE_STRIDE = {"i3d": 16, "efficientnet_lite0": 8, "timesformer": 16}


@pytest.mark.parametrize("name", sorted(TRUNKS))
def test_a_trunk_makes_the_map_it_announces(name):
    trunk = TRUNKS[name](**ARGUMENTS[name]).eval()
    with torch.no_grad():
        features = trunk(torch.randn(1, 3, 8, 32, 32))
    side = 32 // SPACE_STRIDE[name]
    assert features.shape == (1, trunk.out_channels, 8 // trunk.time_stride, side, side)


def test_the_frame_trunk_learns_only_the_stages_it_is_told_and_keeps_its_statistics():
    frozen, trained = FrameTrunk(16), FrameTrunk(16, trained_stages=1)
    assert not any(parameter.requires_grad for parameter in frozen.stem.parameters())
    assert trained.stem._blocks[-1]._project_conv.weight.requires_grad
    assert not trained.stem._blocks[0]._project_conv.weight.requires_grad
    assert not any(module.training for module in trained.train().stem.modules())
    with pytest.raises(UserError, match="trained_stages must be 0 to 5, got 6"):
        FrameTrunk(16, trained_stages=6)
