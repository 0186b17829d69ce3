"""Statistics over time of a frozen image network's features: a clip encoder without training.

The network, EfficientNet-Lite0 with ImageNet weights, sees every frame alone. Time enters through
the standard deviation and the change from frame to frame of each feature, patch by patch.

Legend: B clips, T frames, S pixels per side, g cells per side of the grid, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.efficientnet_lite import EfficientNetLiteTrunk

STATISTICS = ("mean", "std", "change")
"""Over time, per cell and channel: mean, standard deviation, mean absolute change from one frame to
the next."""


class FrameStatistics(nn.Module):
    """EfficientNet-Lite0 per frame, pooled to a grid, then `STATISTICS` over time.

    Args:
        num_frames: T of a clip.
        image_size: S.
        num_stages: stages of EfficientNet-Lite0 kept, 1..7.
        grid: g.
        statistics: which of `STATISTICS`, in this order.

    Raises:
        UserError: if a statistic is unknown, or one frame should change.
    """

    def __init__(
        self,
        num_frames: int = 8,
        image_size: int = 160,
        num_stages: int = 6,
        grid: int = 4,
        statistics: tuple[str, ...] | list[str] = STATISTICS,
    ) -> None:
        super().__init__()
        unknown = [name for name in statistics if name not in STATISTICS]
        if unknown or not statistics:
            raise UserError(f"statistics are {', '.join(STATISTICS)}, got {list(statistics)}")
        if num_frames < 2 and set(statistics) != {"mean"}:
            raise UserError(
                f"{list(statistics)} over {num_frames} frame; give 2 frames or more, or only 'mean'"
            )
        self.trunk = EfficientNetLiteTrunk(num_stages).requires_grad_(False)
        self.num_frames, self.image_size, self.grid = num_frames, image_size, grid
        self.statistics = tuple(statistics)
        self.embed_dim = len(statistics) * grid**2 * self.trunk.width
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "image_size": image_size,
            "num_stages": num_stages,
            "grid": grid,
            "statistics": list(statistics),
        }
        self.train()

    def train(self, mode: bool = True) -> FrameStatistics:
        """Change nothing: the network is frozen, its batch statistics too."""
        return super().train(False)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Encode clips (B, T, 3, S, S).

        Returns:
            "tokens" (B, T*g*g, C), frame-major; "embedding" (B, len(statistics)*g*g*C).
        """
        B, T = clip.shape[:2]
        maps = F.adaptive_avg_pool2d(self.trunk(clip.flatten(0, 1)), self.grid)  # (B*T, C, g, g)
        cells = maps.flatten(2).transpose(1, 2).unflatten(0, (B, T))  # (B, T, g*g, C)
        parts = [over_time(cells, name).flatten(1) for name in self.statistics]
        return {"tokens": cells.flatten(1, 2), "embedding": torch.cat(parts, dim=1)}


def over_time(cells: Tensor, statistic: str) -> Tensor:
    """Return one of `STATISTICS` of features (B, T, ...) over axis 1."""
    if statistic == "mean":
        return cells.mean(1)
    if statistic == "std":
        return cells.std(1)
    return (cells[:, 1:] - cells[:, :-1]).abs().mean(1)
