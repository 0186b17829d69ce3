"""The attack of GAT on frame features: audio and visual features move along their own gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.losses.adversarial import Norm, adversarial_perturbation


def gat_feature_attack(
    model: nn.Module,
    features: Mapping[str, Tensor],
    labels: Tensor,
    *,
    eps: float = 0.5,
    norm: Norm = "frame",
    mask: Tensor | None = None,
) -> dict[str, Any]:
    """Move every frame's features by `eps` along the gradient of the binary cross-entropy.

    Sahu et al., "GAT", section 3.2, Eq. 3:  R = eps G / ||G||_2, one norm a frame, one gradient a
    modality.

    Args:
        model: `model(features, mask)` -> dict with "logits" (B, K), in evaluation mode.
        features: name -> float (B, T, D).
        labels: float or bool, (B, K), multi-label.
        eps: length of the move of a frame, in the units of the features.
        norm: "frame" (the paper) or "clip".
        mask: bool (B, T), True at real frames.

    Returns:
        "features": name -> moved, like the input; "logits" and "clean_logits" (B, K).
    """
    moved = {name: value.detach().clone().requires_grad_(True) for name, value in features.items()}
    clean_logits = model(moved, mask)["logits"]
    loss = F.binary_cross_entropy_with_logits(
        clean_logits, labels.to(clean_logits.dtype), reduction="sum"
    )
    shifts = adversarial_perturbation(loss, list(moved.values()), eps, norm, retain_graph=False)
    attacked = {
        name: (value + shift).detach()
        for (name, value), shift in zip(moved.items(), shifts, strict=True)
    }
    with torch.no_grad():
        logits = model(attacked, mask)["logits"]
    return {"features": attacked, "logits": logits, "clean_logits": clean_logits.detach()}
