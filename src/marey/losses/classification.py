"""Cross-entropy for clips, with label smoothing, class weights and mixed clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError


def soft_targets(labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Return target distributions: 1 - smoothing on the label, and smoothing spread evenly over all classes.

    Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7.

    Args:
        labels: int, (B,).

    Returns:
        float, (B, K), rows sum to 1.
    """
    return F.one_hot(labels, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of logits against target distributions.

    With weights w the mean is sum_b sum_k w_k t_bk (-log p_bk) / B: a batch of rare classes counts more than one of
    frequent classes, which `F.cross_entropy` hides by dividing by the batch's own weight.

    Args:
        logits: float, (B, K).
        targets: float, (B, K), rows sum to 1.
        class_weights: float, (K,), or None for 1.
    """
    if logits.shape != targets.shape:
        raise UserError(f"logits are {tuple(logits.shape)} but targets {tuple(targets.shape)}; "
                        "build the model with num_classes as the data has")
    losses = -targets * F.log_softmax(logits.float(), dim=-1)                                         # (B, K)
    return (losses if class_weights is None else losses * class_weights).sum(-1).mean()


def balanced_class_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Return (K,) weights inverse to the class counts, 1 on average over `labels`; classes that do not occur get 0."""
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_classes).float()
    weights = torch.where(counts > 0, 1 / counts.clamp(min=1), torch.zeros(()))
    return weights * len(labels) / (counts > 0).sum()


class ClassificationLoss(nn.Module):
    """`loss(outputs, targets) -> {"class": scalar}` for outputs["logits"] (B, K) and target distributions (B, K)."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, outputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return the unweighted term."""
        return {"class": cross_entropy(outputs["logits"], targets, self.class_weights)}


def mixup(clip: Tensor, targets: Tensor, share: float, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Blend every clip and its target with a partner's: share * own + (1 - share) * partner's.

    Zhang et al., "mixup", ICLR 2018, Eq. 1.

    Args:
        clip: float, (B, T, C, H, W).
        targets: float, (B, K).
        partner: int, (B,), which clip is whose partner.
    """
    return share * clip + (1 - share) * clip[partner], share * targets + (1 - share) * targets[partner]


def cutmix(clip: Tensor, targets: Tensor, share: float, partner: Tensor,
           centre: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Paste one box of the partner, the same in all frames, covering 1 - share of the area (less at the border).

    Yun et al., "CutMix", ICCV 2019, Eqs. 1-2; the target's share is that of the pixels actually pasted.

    Args:
        centre: the box's centre as shares of width and height, each in [0, 1).
    """
    H, W = clip.shape[-2:]
    half_width, half_height = 0.5 * W * (1 - share) ** 0.5, 0.5 * H * (1 - share) ** 0.5
    left, right = (min(W, max(0, round(centre[0] * W + side * half_width))) for side in (-1, 1))
    top, bottom = (min(H, max(0, round(centre[1] * H + side * half_height))) for side in (-1, 1))
    mixed = clip.clone()
    mixed[..., top:bottom, left:right] = clip[partner][..., top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (H * W)
    return mixed, kept * targets + (1 - kept) * targets[partner]
