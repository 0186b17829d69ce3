"""SeViTAR with a linear map of the stem's features beside it: appearance and change of every patch.

Nothing trains it any more: `marey teach` fits such a map alone. Checkpoints of
`marey train finetune_folder`, as it was, keep loading and answering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.models.sevitar import SeViTAR, SeViTARConfig
from marey.models.timesformer_config import TimeSformerConfig


@dataclass(frozen=True, kw_only=True)
class GridSeViTARConfig(SeViTARConfig):
    """SeViTAR's settings, with a stem that gives a grid of features."""

    stem: str = "efficientnet_lite0"


class GridSeViTAR(SeViTAR):
    """SeViTAR whose logits are those of its class MLP plus those of a linear map of the stem's
    grid.

    The map reads, for every patch and channel of the stem's image network, the mean over time, the
    mean absolute change from frame to frame, and the standard deviation over time: 3*N*C values.

    Args:
        config: the settings; or its fields as keyword arguments. The stem must have an image
            network ("efficientnet_lite0", "conv+efficientnet_lite0"), which gives the grid.

    Raises:
        UserError: if settings do not fit together, or the stem has no image network.
    """

    config_type: ClassVar[type[TimeSformerConfig]] = GridSeViTARConfig

    def __init__(self, config: GridSeViTARConfig | None = None, /, **fields: Any) -> None:
        config = GridSeViTARConfig(**fields) if config is None else config
        super().__init__(config)
        if self.feature_stem is None:
            raise UserError(
                f"grid_sevitar reads the features of stem 'efficientnet_lite0', but stem is "
                f"'{config.stem}'; choose that stem, or model sevitar"
            )

        num_patches = config.grid[0] * config.grid[1]
        self.grid_head = nn.Linear(
            3 * num_patches * self.feature_stem.image_width, config.num_classes
        )
        nn.init.zeros_(self.grid_head.weight)
        nn.init.zeros_(self.grid_head.bias)

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Classify clips (B, T, 3, H, W) or their stem features; as `SeViTAR`, the map's logits
        added to "logits", and "deciding_embedding" (B, 3*C), what the map reads."""
        if clip.ndim != 4:
            self._check_clip(clip)
        features = self.stem_features(clip)
        if features is None:
            size = self.config.image_size
            raise UserError(
                f"grid_sevitar reads clips of {size}x{size} pixels only, got "
                f"{tuple(clip.shape[-2:])}"
            )

        outputs = super().forward(features, return_attention)
        values = self._grid_values(features)
        outputs["logits"] = outputs["logits"] + self.grid_head(values)
        # The map decides, so trust rests on what it reads, averaged over patches: (B, 3*C).
        width = self.feature_stem.image_width if self.feature_stem is not None else 1
        outputs["deciding_embedding"] = values.unflatten(1, (3, -1, width)).mean(2).flatten(1)
        return outputs

    def _grid_values(self, features: Tensor) -> Tensor:
        """Return what the linear map reads, (B, 3*N*C), of stem features (B, T, N, C')."""
        assert self.feature_stem is not None
        return grid_statistics(self.feature_stem.image_features(features))


def grid_statistics(features: Tensor) -> Tensor:
    """Return mean, mean absolute change and standard deviation over time (B, 3*N*C) of features (B,
    T, N, C)."""
    if features.shape[1] < 2:
        raise UserError(
            "grid_sevitar measures change and needs at least 2 frames; build it with num_frames=2 "
            "or more"
        )
    change = (features[:, 1:] - features[:, :-1]).abs().mean(1)
    return torch.cat(
        [part.flatten(1) for part in (features.mean(1), change, features.std(1))], dim=1
    )
