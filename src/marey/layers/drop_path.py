"""Stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Drop a residual branch for whole clips of the batch, while training.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. The released TimeSformer drops
    per sequence (one patch position over time, or one frame); we drop per clip, so that its tokens
    share the same blocks.

    Args:
        rate: probability in [0, 1) that a clip loses the branch; kept branches are divided by 1 -
            rate.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Return (B, ...) with the rows of dropped clips zero."""
        if self.rate == 0.0 or not self.training:
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = torch.rand(shape, device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1.0 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
