"""The parts of Inception-v1 in 3-D: convolution unit and max pool with TensorFlow's SAME padding,
inception block.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017. Submodules carry the names of the
public checkpoints (`conv3d`, `bn`, `b0` .. `b3b`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return (front, back) padding of one axis as TensorFlow's SAME has it: the odd one goes to the
    back.

    A convolution padded so gives ceil(size / stride) values along the axis.
    """
    total = max(kernel - stride if size % stride == 0 else kernel - size % stride, 0)
    return total // 2, total - total // 2


def pad_same(
    features: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> Tensor:
    """Pad the last three axes with zeros, SAME; (B, D, t, h, w) -> the same with larger t, h, w."""
    pads: list[int] = []
    for size, k, d in zip(
        features.shape[:1:-1], kernel[::-1], stride[::-1], strict=True
    ):  # F.pad wants w first
        pads.extend(same_padding(size, k, d))
    return F.pad(features, pads) if any(pads) else features


class ConvUnit(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3, momentum 0.01), ReLU; SAME padding.

    Args:
        in_channels, out_channels: D in and out.
        kernel, stride: (t, h, w).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, t, h, w) -> (B, D', ceil(t / stride), ...), not negative."""
        if self.stride == (1, 1, 1) and all(k % 2 for k in self.kernel):  # SAME is symmetric here
            features = F.conv3d(features, self.conv3d.weight, padding=[k // 2 for k in self.kernel])
        else:
            features = self.conv3d(pad_same(features, self.kernel, self.stride))
        return F.relu(self.bn(features))


class MaxPoolSame(nn.Module):
    """Max pool with SAME padding of zeros, as the public PyTorch port does (harmless: its inputs
    follow a ReLU)."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, t, h, w) -> (B, D, ceil(t / stride), ...)."""
        return F.max_pool3d(pad_same(features, self.kernel, self.stride), self.kernel, self.stride)


class InceptionBlock(nn.Module):
    """Four branches over the same input, concatenated: 1x1, 1x1-3x3, 1x1-3x3, pool-1x1.

    Args:
        in_channels: D.
        widths: output channels of b0, b1a, b1b, b2a, b2b, b3b.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = ConvUnit(in_channels, b0)
        self.b1a = ConvUnit(in_channels, b1a)
        self.b1b = ConvUnit(b1a, b1b, (3, 3, 3))
        self.b2a = ConvUnit(in_channels, b2a)
        self.b2b = ConvUnit(b2a, b2b, (3, 3, 3))
        self.b3a = MaxPoolSame((3, 3, 3), (1, 1, 1))
        self.b3b = ConvUnit(in_channels, b3b)
        self.out_channels = b0 + b1b + b2b + b3b

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, t, h, w) -> (B, out_channels, t, h, w)."""
        return torch.cat(
            [
                self.b0(features),
                self.b1b(self.b1a(features)),
                self.b2b(self.b2a(features)),
                self.b3b(self.b3a(features)),
            ],
            dim=1,
        )


def freeze_batch_statistics(module: nn.Module) -> None:
    """Keep every batch norm below `module` at its stored mean and variance; scale and shift go on
    learning.

    Girdhar et al., "Video Action Transformer Network", CVPR 2019, Sec. 3.5. Call it again after
    `train()`.
    """
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
