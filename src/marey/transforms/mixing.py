"""Mixup and CutMix: two clips of a batch mixed into one, with their labels."""

from __future__ import annotations

from torch import Tensor


def mixup(clip: Tensor, targets: Tensor, share: float, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Blend every clip and its target with a partner's: share * own + (1 - share) * partner's.

    Zhang et al., "mixup", ICLR 2018, Eq. 1.

    Args:
        clip: float, (B, T, C, H, W).
        targets: float, (B, K).
        partner: int, (B,), which clip is whose partner.
    """
    return share * clip + (1 - share) * clip[partner], share * targets + (1 - share) * targets[
        partner
    ]


def cutmix(
    clip: Tensor, targets: Tensor, share: float, partner: Tensor, centre: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Paste one box of the partner, the same in all frames, covering 1 - share of the area
    (less at the border).

    Yun et al., "CutMix", ICCV 2019, Eqs. 1-2; the target's share is that of the pixels actually
    pasted.

    Args:
        centre: the box's centre as shares of width and height, each in [0, 1).
    """
    H, W = clip.shape[-2:]
    half_width, half_height = 0.5 * W * (1 - share) ** 0.5, 0.5 * H * (1 - share) ** 0.5
    left, right = (min(W, max(0, round(centre[0] * W + side * half_width))) for side in (-1, 1))
    top, bottom = (min(H, max(0, round(centre[1] * H + side * half_height))) for side in (-1, 1))
    mixed = clip.clone()
    mixed[..., top:bottom, left:right] = clip[partner][..., top:bottom, left:right]

    # The box may reach beyond the frame: count the pixels that were pasted, not the share that was
    # drawn.
    kept = 1 - (bottom - top) * (right - left) / (H * W)
    return mixed, kept * targets + (1 - kept) * targets[partner]
