"""SeViTAR with a linear read-out of the stem beside it: what stands where, and where it changes.

From a few dozen clips a transformer learns little more than their names; a strongly regularised linear map of a
pretrained stem's grid learns more (`ut_interaction`, set1 -> set2: results/finetune_ut_interaction.json). This model
adds the two: the map's logits and SeViTAR's. The map has a closed-form fit, see `fit_grid_head`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.models.sevitar import SeViTAR

RIDGES = (0.03, 0.1, 0.3, 1.0)
SCALES = (2.0, 4.0, 6.0, 9.0, 13.0)


class GridSeViTAR(SeViTAR):
    """SeViTAR whose logits are those of its class MLP plus those of a linear map of the stem's grid.

    The map sees, for every place of the grid and channel of the stem's trunk, the mean over time, the mean absolute
    change from frame to frame, and the standard deviation over time: 3*N*C values.

    Args:
        as `SeViTAR`; the stem must have an image network ("efficientnet_lite0", "conv+efficientnet_lite0"), which gives
            the grid.

    Raises:
        UserError: if the stem has no trunk.
    """

    def __init__(self, num_classes: int, label_dim: int = 384, label_hidden: Sequence[int] = (768,),
                 class_hidden: Sequence[int] = (768,), head_dropout: float = 0.0, detach_label_embedding: bool = False,
                 num_orders: int = 0, shared_norm: bool = False, num_frames: int = 8, image_size: int = 224,
                 patch_size: int = 16, embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
                 mlp_ratio: float = 4.0, attention: str = "divided", time_attention: str = "softmax",
                 space_attention: str = "softmax", cls_in_time: bool = False, position_embedding: str = "separable",
                 stem: str = "efficientnet_lite0", stem_stage: int | None = None, freeze_stem_norm: bool = False,
                 drop_path: float = 0.0, dropout: float = 0.0, attention_dropout: float = 0.0, qkv_bias: bool = True,
                 resize_embeddings: str | None = None, activation_checkpointing: bool | str = False):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(**arguments)
        if not hasattr(self.patch_embed, "trunk"):
            raise UserError(f"grid_sevitar reads the trunk of stem 'efficientnet_lite0', but stem is '{stem}'; "
                            "choose that stem, or model sevitar")
        self.grid_head = nn.Linear(3 * self.grid[0] * self.grid[1] * self.patch_embed.image_width, num_classes)
        nn.init.zeros_(self.grid_head.weight)
        nn.init.zeros_(self.grid_head.bias)

    def trunk_features(self, clip: Tensor) -> Tensor:
        """Return the trunk's features (B, T, N, C) of a clip (B, T, 3, H, W); features pass through."""
        if clip.ndim == 4:
            return clip
        B, T, _, _ = self._check_clip(clip)
        features = self.patch_embed.trunk(clip.flatten(0, 1))  # type: ignore[union-attr,operator]
        return features.flatten(2).transpose(1, 2).unflatten(0, (B, T))

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Classify clips; as `SeViTAR`, with the map's logits added to "logits"."""
        features = self.trunk_features(clip)
        outputs = super().forward(features, return_attention)
        seen = self.patch_embed.image_features(features)  # type: ignore[operator]
        outputs["logits"] = outputs["logits"] + self.grid_head(grid_statistics(seen))
        return outputs


def grid_statistics(features: Tensor) -> Tensor:
    """Return mean, mean absolute change and deviation over time (B, 3*N*C) of trunk features (B, T, N, C)."""
    if features.shape[1] < 2:
        raise UserError("grid_sevitar measures change and needs at least 2 frames; build it with num_frames=2 or more")
    change = (features[:, 1:] - features[:, :-1]).abs().mean(1)
    return torch.cat([part.flatten(1) for part in (features.mean(1), change, features.std(1))], dim=1)


def ridge(values: Tensor, targets: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Fit targets (M, K) linearly from values (M, Q), Q larger than M: the dual form of ridge regression.

    Values are standardised first, and the penalty is `strength` times Q.

    Returns:
        weight (K, Q) and bias (K,) for values as they came.
    """
    mean, deviation = values.mean(0), values.std(0) + 1e-5
    standard = (values - mean) / deviation
    kernel = standard @ standard.T / values.shape[1]
    dual = torch.linalg.solve(kernel + strength * torch.eye(len(kernel), dtype=kernel.dtype), targets - targets.mean(0))
    weight = (standard.T @ dual).T / values.shape[1] / deviation
    return weight, targets.mean(0) - weight @ mean


def fit_grid_head(model: GridSeViTAR, features: Tensor, labels: Tensor, *, folds: int = 5) -> dict[str, float]:
    """Set the linear map by ridge regression on one-hot labels, and silence the class MLP until it is trained.

    Strength and scale (logits per unit of score) are chosen by cross-validation over clips, by cross-entropy.

    Args:
        features: float, (M, V, T, N, C), V augmentations of each of M clips.
        labels: int64, (M,).
        folds: parts of the cross-validation.

    Returns:
        "ridge", "scale", and "cross_validated", the accuracy of held-out clips.
    """
    M, V = features.shape[:2]
    K = int(model.arguments["num_classes"])
    seen = model.patch_embed.image_features(features)  # type: ignore[operator]
    values = grid_statistics(seen.flatten(0, 1)).double().unflatten(0, (M, V))
    targets = F.one_hot(labels, K).double()[:, None].expand(-1, V, -1)
    part = torch.arange(M) % folds
    part = part[torch.argsort(torch.argsort(labels, stable=True), stable=True)]      # every class in every fold
    best: tuple[float, float, float, float] | None = None
    for strength in RIDGES:
        scores = torch.zeros(M, K, dtype=torch.double)
        for fold in range(folds):
            known, asked = part != fold, part == fold
            weight, bias = ridge(values[known].flatten(0, 1), targets[known].flatten(0, 1), strength)
            scores[asked] = (values[asked] @ weight.T + bias).mean(1)
        hits = float((scores.argmax(1) == labels).double().mean())
        for scale in SCALES:
            loss = float(F.cross_entropy(scale * scores, labels))
            if best is None or loss < best[0]:
                best = (loss, strength, scale, hits)
    assert best is not None
    weight, bias = ridge(values.flatten(0, 1), targets.flatten(0, 1), best[1])
    with torch.no_grad():
        model.grid_head.weight.copy_(best[2] * weight)
        model.grid_head.bias.copy_(best[2] * bias)
        last = model.class_mlp[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return {"ridge": best[1], "scale": best[2], "cross_validated": best[3]}
