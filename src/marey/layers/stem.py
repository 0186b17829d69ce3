"""The stems by name: each turns frames into a grid of tokens."""

from __future__ import annotations

from torch import nn

from marey.errors import UserError
from marey.layers.efficientnet_lite import EfficientNetLiteStem
from marey.layers.paired_stem import PairedStem
from marey.layers.patch_embed import ConvStem, LinearPatchEmbed
from marey.layers.pose_stem import PoseStem

PICTURE_STEMS = ("linear", "conv", "efficientnet_lite0", "conv+efficientnet_lite0")
"""Stems that read frames."""

STEMS = (*PICTURE_STEMS, "pose")
"""The names that `build_stem` takes."""


def build_stem(
    stem: str,
    patch_size: int,
    embed_dim: int,
    *,
    stage: int | None = None,
    freeze_batch_norm: bool = False,
    num_persons: int = 1,
) -> nn.Module:
    """Build the map from frames, or with "pose" from keypoints, to tokens.

    Args:
        stem: one of `STEMS`.
        patch_size: output stride in pixels.
        embed_dim: token width D.
        stage: stages 1..7 of EfficientNet-Lite0 to keep; None keeps all that have this stride.
        freeze_batch_norm: keep batch norm statistics as they are while training.
        num_persons: P of "pose".

    Raises:
        UserError: if the name is unknown or the stem cannot have this stride.
    """
    if stem == "linear":
        return LinearPatchEmbed(patch_size, embed_dim)
    if stem == "conv":
        return ConvStem(patch_size, embed_dim, freeze_batch_norm=freeze_batch_norm)
    if stem == "efficientnet_lite0":
        return EfficientNetLiteStem(
            patch_size, embed_dim, stage=stage, freeze_batch_norm=freeze_batch_norm
        )
    if stem == "conv+efficientnet_lite0":
        return PairedStem(patch_size, embed_dim, stage=stage, freeze_batch_norm=freeze_batch_norm)
    if stem == "pose":
        return PoseStem(embed_dim, num_persons)
    raise UserError(f"unknown stem '{stem}'; choose one of {', '.join(STEMS)}")
