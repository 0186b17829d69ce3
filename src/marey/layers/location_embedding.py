"""Location embedding of the Video Action Transformer: position and time as extra channels.

Girdhar et al., "Video Action Transformer Network", CVPR 2019, Sec. 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LocationEmbedding(nn.Module):
    """Two 2-layer MLPs, one of [h, w] and one of [t] relative to the centre, concatenated to the
    channels.

    Space runs over [-1, 1] at any size; time is measured in half-lengths of the training clip, so a
    longer test clip reaches beyond [-1, 1] and its middle keeps the values it was trained with.

    Args:
        channels: added channels, half of them for space and half for time.
        time_half_steps: half the number of feature steps of a training clip.
    """

    def __init__(self, channels: int = 64, time_half_steps: float = 8.0) -> None:
        super().__init__()
        half = channels // 2
        self.time_half_steps = time_half_steps
        self.space = nn.Sequential(nn.Linear(2, half), nn.ReLU(), nn.Linear(half, half))
        self.time = nn.Sequential(
            nn.Linear(1, channels - half), nn.ReLU(), nn.Linear(channels - half, channels - half)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, t, h, w) -> (B, D + channels, t, h, w)."""
        B, _, t, h, w = features.shape
        steps = (torch.arange(t).to(features) - (t - 1) / 2) / self.time_half_steps
        rows, columns = (((torch.arange(n).to(features) + 0.5) / n * 2 - 1) for n in (h, w))
        space = self.space(
            torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        )  # (h, w, half)
        time = self.time(steps[:, None])  # (t, half)
        where = torch.cat(
            [space.expand(t, h, w, -1), time[:, None, None].expand(t, h, w, -1)], dim=-1
        )
        return torch.cat([features, where.permute(3, 0, 1, 2).expand(B, -1, -1, -1, -1)], dim=1)
