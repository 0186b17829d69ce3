"""From frames to patch tokens: a linear map, or a small convolutional network in front of it.

Every stem takes frames (M, 3, H, W) and returns tokens (M, h*w, D), row by row, with h = H /
patch_size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.frozen_norm import FrozenNormMixin


class LinearPatchEmbed(nn.Module):
    """One linear map of each patch's pixels (ViT; DirecFormer, Eq. 3; SeViTAR, Eq. 1), as one
    matrix product.

    The weight has the shape of the convolution it replaces, (D, 3, P, P), so public checkpoints
    load unchanged.

    Args:
        patch_size: P, pixels per side.
        embed_dim: token width D.
    """

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (M, h*w, D) tokens of frames (M, 3, H, W)."""
        M, C, H, W = frames.shape
        P = self.patch_size
        h, w = H // P, W // P
        patches = (
            frames.reshape(M, C, h, P, w, P).permute(0, 2, 4, 1, 3, 5).reshape(M, h * w, C * P * P)
        )
        # Eq. 3 of DirecFormer and Eq. 1 of SeViTAR: α(x), before the position is added.
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(FrozenNormMixin):
    """Halve the frame log2(P) times by 3x3 convolutions with batch norm and GELU, then project to
    D.

    Xiao et al., "Early Convolutions Help Transformers See Better", 2021. Widths double up to
    `embed_dim`.

    Args:
        patch_size: output stride P, a power of two.
        embed_dim: token width D.
        freeze_batch_norm: keep batch norm statistics as they are while training.

    Raises:
        UserError: if `patch_size` is no power of two.
    """

    def __init__(self, patch_size: int, embed_dim: int, *, freeze_batch_norm: bool = False):
        super().__init__()
        steps = int(math.log2(patch_size)) if patch_size > 1 else 0
        if steps < 1 or 2**steps != patch_size:
            raise UserError(
                f"stem 'conv' halves the frame, so patch_size must be a power of two from 2 on, "
                f"not {patch_size}; choose 16 or stem='linear'"
            )
        self.freeze_batch_norm = freeze_batch_norm
        layers: list[nn.Module] = []
        width_in = 3
        for step in range(steps):
            width = max(8, embed_dim // 2 ** (steps - 1 - step))
            layers += [
                nn.Conv2d(width_in, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.GELU(),
            ]
            width_in = width
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(width_in, embed_dim, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (M, h*w, D) tokens of frames (M, 3, H, W)."""
        frames = frames.contiguous(
            memory_format=torch.channels_last
        )  # nearly halves a training step on CPUs
        return self.proj(self.convs(frames)).flatten(2).transpose(1, 2)
