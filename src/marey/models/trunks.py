"""Trunks of the detection models: networks that turn a clip into a feature map for the heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.efficientnet_lite import EfficientNetLiteTrunk, blocks_before
from marey.layers.i3d_blocks import ConvUnit
from marey.models.i3d import I3DTrunk
from marey.models.timesformer import TimeSformer
from marey.models.timesformer_config import TimeSformerConfig


class TimeSformerTrunk(nn.Module):
    """A TimeSformer whose patch tokens are the feature map.

    Args:
        arguments: keyword arguments of `TimeSformer` (its classifier is not used).
    """

    time_stride = 1

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        config = TimeSformerConfig(**{"num_classes": 1, **arguments})
        self.timesformer = TimeSformer(config)
        self.out_channels = config.embed_dim
        self.patch_size = config.patch_size

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, D, T, H / patch, W / patch)."""
        T, H, W = clip.shape[2:]
        tokens = self.timesformer.features(rearrange(clip, "b c t h w -> b t c h w"))["tokens"]
        h, w = H // self.patch_size, W // self.patch_size
        # Without the class token, which is first.
        return rearrange(tokens[:, -T * h * w :], "b (t h w) d -> b d t h w", t=T, h=h, w=w)


class FrameTrunk(nn.Module):
    """An image network frame by frame, then convolutions over time: a trunk that needs no video
    pre-training.

    EfficientNet-Lite0's stages 3 and 5 (strides 8 and 16) are brought to stride 8, reduced to
    `channels`, and mixed over time and space by two convolution units, the first of which halves
    the number of frames. The stem's weights start as ImageNet's (`load_imagenet_stem`); not in the
    paper, whose trunk is I3D.

    Args:
        channels: D of the feature map.
        trained_stages: how many of the stem's last stages learn; its batch norm keeps its
            statistics even there.
        from_scratch: the whole stem learns, batch norm statistics included: for random weights,
            which stored statistics of 0 and 1 would silence (outputs of 6e-6).

    Raises:
        UserError: if the stem has fewer stages.
    """

    time_stride = 2
    NUM_STAGES = 5
    FINE_BLOCKS = blocks_before(3)
    """Blocks up to the end of stage 3, whose stride is 8."""

    def __init__(
        self, channels: int = 160, trained_stages: int = 0, from_scratch: bool = False
    ) -> None:
        super().__init__()
        self.from_scratch = from_scratch
        if not 0 <= trained_stages <= self.NUM_STAGES:
            raise UserError(
                f"trunk_arguments.trained_stages must be 0 to {self.NUM_STAGES}, got "
                f"{trained_stages}"
            )
        self.stem = EfficientNetLiteTrunk(self.NUM_STAGES)
        self.stem.requires_grad_(from_scratch)
        first = blocks_before(self.NUM_STAGES - trained_stages)
        for block in self.stem._blocks[first:]:
            block.requires_grad_(True)
        self.fine_channels, self.coarse_channels, self.out_channels = 40, self.stem.width, channels
        self.reduce = ConvUnit(self.fine_channels + self.coarse_channels, channels)
        self.over_time = ConvUnit(channels, channels, (3, 1, 1), (2, 1, 1))
        self.over_space = ConvUnit(channels, channels, (1, 3, 3))
        self.over_both = ConvUnit(channels, channels, (3, 1, 1))
        for unit in (self.reduce, self.over_time, self.over_space, self.over_both):
            unit.bn.momentum = 0.1  # statistics settle within a hundred steps

    def train(self, mode: bool = True) -> FrameTrunk:
        """Switch mode; the stem stays in evaluation mode unless it learns from scratch."""
        super().train(mode)
        if not self.from_scratch:
            self.stem.eval()
        return self

    def stem_features(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of single frames (M, 3, H, W): fine (M, 40, H/8, W/8) and coarse (M,
        112, H/16, W/16)."""
        features = frames.contiguous(memory_format=torch.channels_last)
        features = F.relu6(self.stem._bn0(self.stem._conv_stem(features)))
        fine = features
        for number, block in enumerate(self.stem._blocks, start=1):
            features = block(features)
            # The end of stage 3 is the fine map; what follows has half its resolution.
            if number == self.FINE_BLOCKS:
                fine = features
        return fine, features

    def mix(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Turn (B, T, 40, h, w) and (B, T, 112, h/2, w/2) into (B, channels, T/2, h, w)."""
        B, _, _, h, w = fine.shape
        raised = F.interpolate(
            coarse.flatten(0, 1), size=(h, w), mode="bilinear", align_corners=False
        )
        both = torch.cat([fine.flatten(0, 1), raised], dim=1)  # (B*T, 152, h, w)
        features = self.reduce(rearrange(both, "(b t) d h w -> b d t h w", b=B))
        features = self.over_space(self.over_time(features))
        return features + self.over_both(features)

    def forward(self, clip: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, channels, T/2, H/8, W/8), rounded up."""
        fine, coarse = self.stem_features(rearrange(clip, "b c t h w -> (b t) c h w"))
        return self.mix(*(part.unflatten(0, (clip.shape[0], -1)) for part in (fine, coarse)))


TRUNKS: dict[str, type[I3DTrunk] | type[TimeSformerTrunk] | type[FrameTrunk]] = {
    "i3d": I3DTrunk,
    "timesformer": TimeSformerTrunk,
    "efficientnet_lite0": FrameTrunk,
}
"""Trunk name -> class. A trunk turns (B, 3, T, H, W) into (B, `out_channels`, T / `time_stride`, h,
w)."""
