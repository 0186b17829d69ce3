"""Two networks side by side: convolutions that are trained, and a frozen image network.

The tokens of the transformer come from the trained convolutions alone. The image network's features
are used by the OOD detector (and by older checkpoints, see `models.grid_sevitar`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.efficientnet_lite import EfficientNetLiteTrunk
from marey.layers.feature_stem import FeatureStem
from marey.layers.patch_embed import ConvStem

CONV_PATCH = 16
"""Pixels per side of a token for the convolutions; frames are shrunk for them to this size."""


class PairedTrunk(nn.Module):
    """Features of both networks on one grid, those of the convolutions first.

    Args:
        patch_size: pixels per token, 16 or more.
        conv_dim: channels of the last convolution.
        num_stages: stages of EfficientNet-Lite0 kept.
    """

    def __init__(self, patch_size: int, conv_dim: int, num_stages: int):
        super().__init__()
        self.patch_size = patch_size
        self.convs = ConvStem(CONV_PATCH, conv_dim).convs
        self.image = EfficientNetLiteTrunk(num_stages)
        self.image.requires_grad_(False)
        self.width = conv_dim + self.image.width

    def convolve(self, frames: Tensor) -> Tensor:
        """Return the convolutions' features (M, conv_dim, h, w) of frames (M, 3, H, W), h = H /
        patch_size."""
        if self.patch_size != CONV_PATCH:
            size = [side // self.patch_size * CONV_PATCH for side in frames.shape[-2:]]
            frames = F.interpolate(frames, size, mode="bilinear", align_corners=False)
        return self.convs(frames.contiguous(memory_format=torch.channels_last))

    def forward(self, frames: Tensor) -> Tensor:
        """Return (M, width, h, w) for frames (M, 3, H, W); the image network's coarser grid is
        interpolated."""
        convolved = self.convolve(frames)
        image = F.interpolate(
            self.image(frames), convolved.shape[-2:], mode="bilinear", align_corners=False
        )
        return torch.cat((convolved, image), dim=1)


class PairedStem(FeatureStem):
    """Tokens from trained convolutions (`ConvStem`), with a frozen EfficientNet-Lite0 beside them.

    Args:
        patch_size: pixels per token, 16 or more.
        embed_dim: token width D.
        stage: stages of EfficientNet-Lite0 kept; None keeps 6.
        freeze_batch_norm: keep the convolutions' batch norm statistics while training (the image
            network's always are).

    Raises:
        UserError: if `patch_size` is below 16.
    """

    def __init__(
        self,
        patch_size: int,
        embed_dim: int,
        *,
        stage: int | None = None,
        freeze_batch_norm: bool = False,
    ):
        super().__init__()
        if patch_size < CONV_PATCH:
            raise UserError(
                f"stem 'conv+efficientnet_lite0' needs a patch_size of {CONV_PATCH} or more, not "
                f"{patch_size}"
            )
        self.freeze_batch_norm = freeze_batch_norm
        self.trunk = PairedTrunk(patch_size, embed_dim, stage or 6)
        self.conv_dim = embed_dim
        self.image_width = self.trunk.image.width
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (M, h*w, D) tokens of frames (M, 3, H, W); the image network is not run."""
        return self.proj(self.trunk.convolve(frames).flatten(2).transpose(1, 2))

    def tokens(self, features: Tensor) -> Tensor:
        """Return tokens (..., N, D) of the trunk's features (..., N, C)."""
        return self.proj(features[..., : self.conv_dim])

    def train(self, mode: bool = True) -> PairedStem:
        """Set training mode; the image network stays in evaluation mode."""
        super().train(mode)
        self.trunk.image.eval()
        return self
