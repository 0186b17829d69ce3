"""I3D: Inception-v1 inflated to 3-D. Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR
2017.

A classifier and, up to Mixed_4f, the trunk of the Action Transformer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.i3d_blocks import ConvUnit, InceptionBlock, MaxPoolSame, freeze_batch_statistics

Widths = tuple[int, int, int, int, int, int]

TRUNK_BLOCKS: dict[str, Widths] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
}
TAIL_BLOCKS: dict[str, Widths] = {
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Output channels of b0, b1a, b1b, b2a, b2b, b3b at full width."""


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _block(in_channels: int, widths: Widths, width: float) -> InceptionBlock:
    b0, b1a, b1b, b2a, b2b, b3b = (_scaled(c, width) for c in widths)
    return InceptionBlock(in_channels, (b0, b1a, b1b, b2a, b2b, b3b))


class I3DTrunk(nn.Sequential):
    """I3D up to Mixed_4f: (B, 3, T, H, W) -> (B, 832 * width, T/4, H/16, W/16), rounded up."""

    time_stride = 4

    def __init__(self, width: float = 1.0) -> None:
        c64, c192 = _scaled(64, width), _scaled(192, width)
        # Names are those of the public checkpoints; each pooling or strided convolution halves the
        # map.
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            Conv3d_1a_7x7=ConvUnit(3, c64, (7, 7, 7), (2, 2, 2)),
            MaxPool3d_2a_3x3=MaxPoolSame((1, 3, 3), (1, 2, 2)),
            Conv3d_2b_1x1=ConvUnit(c64, c64),
            Conv3d_2c_3x3=ConvUnit(c64, c192, (3, 3, 3)),
            MaxPool3d_3a_3x3=MaxPoolSame((1, 3, 3), (1, 2, 2)),
        )
        channels = c192
        for name, widths in TRUNK_BLOCKS.items():
            if name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = MaxPoolSame((3, 3, 3), (2, 2, 2))
            block = _block(channels, widths, width)
            layers[name] = block
            channels = block.out_channels
        super().__init__(layers)
        self.out_channels = channels


class I3DTail(nn.Sequential):
    """The last blocks, MaxPool3d_5a to Mixed_5c: (B, D, t, h, w) -> (B, 1024 * width, t/2, h/2,
    w/2), rounded up."""

    def __init__(self, in_channels: int, width: float = 1.0) -> None:
        mixed_5b = _block(in_channels, TAIL_BLOCKS["Mixed_5b"], width)
        mixed_5c = _block(mixed_5b.out_channels, TAIL_BLOCKS["Mixed_5c"], width)
        super().__init__(
            OrderedDict(
                MaxPool3d_5a_2x2=MaxPoolSame((2, 2, 2), (2, 2, 2)),
                Mixed_5b=mixed_5b,
                Mixed_5c=mixed_5c,
            )
        )
        self.out_channels = mixed_5c.out_channels


class I3D(nn.Module):
    """Classify clips with Inception-v1 inflated to 3-D (12,697,264 parameters at 400 classes, full
    width).

    Any input size: the paper's 2 x 7 x 7 average window shrinks to the feature map where that is
    smaller, and its outputs are averaged over time (and over space where the map is larger).

    Args:
        num_classes: K.
        width: multiplies every channel count; 0.25 is the mini trunk.
        dropout: before the classifier.
        frozen_norm: keep batch norm at its stored statistics in training too.
    """

    task: ClassVar[str] = "clips"

    def __init__(
        self,
        num_classes: int = 400,
        width: float = 1.0,
        dropout: float = 0.5,
        frozen_norm: bool = False,
    ) -> None:
        super().__init__()
        if width <= 0:
            raise UserError(f"width must be positive, got {width}; 1.0 is the published network")
        self.arguments: dict[str, Any] = {
            "num_classes": num_classes,
            "width": width,
            "dropout": dropout,
            "frozen_norm": frozen_norm,
        }
        self.frozen_norm = frozen_norm
        self.trunk = I3DTrunk(width)
        self.tail = I3DTail(self.trunk.out_channels, width)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv3d(self.tail.out_channels, num_classes, 1)

    def train(self, mode: bool = True) -> I3D:
        """Switch mode; batch norm stays at its stored statistics with `frozen_norm`."""
        super().train(mode)
        if self.frozen_norm:
            freeze_batch_statistics(self)
        return self

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Tensor]:
        """Classify.

        Args:
            clip: float, (B, T, 3, H, W), in [-1, 1] for the published weights.
            return_attention: accepted for the common interface; a convolution has none to return.

        Returns:
            "logits" (B, K); "embedding" (B, 1024 * width), the pooled feature; "logits_per_step"
            (B, K, T'), the published port's output.
        """
        features = self.tail(self.trunk(rearrange(clip, "b t c h w -> b c t h w")))
        # The published head averages windows of 2 x 7 x 7 and classifies each; smaller maps get a
        # smaller window.
        window = [min(size, full) for size, full in zip(features.shape[2:], (2, 7, 7), strict=True)]
        pooled = F.avg_pool3d(features, window, stride=1)  # (B, D, T', 1, 1) at 224 pixels
        per_step = self.logits(self.dropout(pooled)).mean(dim=(3, 4))  # (B, K, T')
        return {
            "logits": per_step.mean(dim=2),
            "embedding": pooled.mean(dim=(2, 3, 4)),
            "logits_per_step": per_step,
        }
