"""SeViTAR with a linear map of the stem's features beside it: appearance and change of every patch.

From a few dozen clips a transformer overfits; a strongly regularised linear map of a pretrained
stem's features generalises better (`ut_interaction`, set1 -> set2:
results/finetune_ut_interaction.json). This model adds the two: the map's logits and SeViTAR's. The
map has a closed-form fit, see `fit_head`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.models.sevitar import SeViTAR, SeViTARConfig
from marey.models.timesformer_config import TimeSformerConfig

RIDGES = (0.03, 0.1, 0.3, 1.0)
"""Strengths of the ridge penalty that `fit_head` chooses from."""

SCALES = (2.0, 4.0, 6.0, 9.0, 13.0)
"""Logits per unit of score that `fit_head` chooses from."""


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

    @torch.no_grad()
    def fit_head(self, features: Tensor, labels: Tensor, *, folds: int = 5) -> dict[str, float]:
        """Set the linear map by ridge regression on one-hot labels, and silence the class MLP until
        it is trained.

        Strength and scale (logits per unit of score) are chosen by cross-validation over clips, by
        cross-entropy.

        Args:
            features: float, (M, V, T, N, C), stem features of V augmentations of each of M clips.
            labels: int64, (M,).
            folds: parts of the cross-validation.

        Returns:
            "ridge", "scale", and "cross_validated", the accuracy of held-out clips.
        """
        M, V = features.shape[:2]
        K = self.config.num_classes
        values = self._grid_values(features.flatten(0, 1)).double().unflatten(0, (M, V))
        targets = F.one_hot(labels, K).double()[:, None].expand(-1, V, -1)

        best = choose_ridge(values, targets, labels, folds)
        weight, bias = ridge(values.flatten(0, 1), targets.flatten(0, 1), best.strength)
        self.grid_head.weight.copy_(best.scale * weight)
        self.grid_head.bias.copy_(best.scale * bias)

        last = cast(nn.Linear, self.class_mlp[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return {"ridge": best.strength, "scale": best.scale, "cross_validated": best.accuracy}


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


def ridge(values: Tensor, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Fit targets (M, K) linearly from values (M, Q), Q larger than M: the dual form of ridge
    regression.

    Values are standardised first, and the penalty is `strength` times Q.

    Returns:
        weight (K, Q) and bias (K,) for values before standardisation.
    """
    mean, std = values.mean(0), values.std(0) + 1e-5
    standard = (values - mean) / std  # (M, Q)

    # Dual form: an M x M system instead of a Q x Q one.
    kernel = standard @ standard.T / values.shape[1]
    dual = torch.linalg.solve(
        kernel + strength * torch.eye(len(kernel), dtype=kernel.dtype), targets - targets.mean(0)
    )
    weight = (standard.T @ dual).T / values.shape[1] / std  # back to the scale of `values`
    return weight, targets.mean(0) - weight @ mean


class RidgeChoice(NamedTuple):
    """A setting of the linear map, with its cross-validated measures."""

    cross_entropy: float
    strength: float
    scale: float
    accuracy: float


def choose_ridge(values: Tensor, targets: Tensor, labels: Tensor, folds: int) -> RidgeChoice:
    """Choose strength and scale by the cross-entropy of held-out clips.

    Args:
        values: float64, (M, V, Q), V augmentations of each of M clips.
        targets: float64, (M, V, K), one-hot.
        labels: int64, (M,).
        folds: parts of the cross-validation; every class is in every fold where it has as many
            clips.
    """
    M, K = len(labels), targets.shape[-1]
    by_label = torch.argsort(torch.argsort(labels, stable=True), stable=True)
    part = (torch.arange(M) % folds)[by_label]

    choices = []
    for strength in RIDGES:
        scores = torch.zeros(M, K, dtype=torch.double)
        for fold in range(folds):
            known, held_out = part != fold, part == fold
            weight, bias = ridge(
                values[known].flatten(0, 1), targets[known].flatten(0, 1), strength
            )
            scores[held_out] = (values[held_out] @ weight.T + bias).mean(1)
        accuracy = float((scores.argmax(1) == labels).double().mean())
        for scale in SCALES:
            choices.append(
                RidgeChoice(
                    float(F.cross_entropy(scale * scores, labels)), strength, scale, accuracy
                )
            )
    return min(choices, key=lambda choice: choice.cross_entropy)
