"""The sparse attack: only a few frames of the clip change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import UserError


def sparse(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    num_frames: int = 1,
    weight: float = 1e-2,
    lr: float = 1e-2,
    steps: int = 50,
    eps: float = 1.0,
    targets: Tensor | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    r"""Change `num_frames` frames by Adam on  weight ||M E||_{2,1} - l(1_y, J(X + M E)).

    ||E||_{2,1} = sum_t ||E_t||_2.

    Wei et al., "Sparse Adversarial Perturbations for Videos", AAAI 2019. With targets the loss
    towards the target is added instead. The frames of the mask M are those with the largest
    gradient on the clean clip (the paper fixes them by hand); a sample stops moving when it is won.

    Args:
        model, clip, labels, targets: as in `marey.attacks.attack`.
        num_frames: frames that may change.
        weight: lambda of the L2,1 norm.
        lr: Adam's step, in [0, 1] pixel units.
        steps: gradients.
        eps: largest change of a value; 1 leaves it free, as in the paper.
        generator: randomness of the first step; a fresh one with seed 0 when absent.
    """
    B, T = clip.shape[:2]
    if not 1 <= num_frames <= T:
        raise UserError(
            f"a clip of {T} frames has 1 to {T} frames to change, got num_frames={num_frames}"
        )
    generator = generator or Generator(device=clip.device).manual_seed(0)
    worst = WorstCase(model, clip, labels, targets)
    clean = clip.float() / 255
    wanted, sign = (labels, -1.0) if targets is None else (targets, 1.0)

    # The mask M: the frames with the largest gradient on the clean clip.
    first = clean.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(
        F.cross_entropy(worst.score(first), wanted, reduction="sum"), first
    )
    chosen = gradient.flatten(2).norm(dim=2).topk(num_frames, dim=1).indices  # (B, num_frames)
    mask = torch.zeros(B, T, device=clip.device).scatter_(1, chosen, 1.0).view(B, T, 1, 1, 1)

    # At E = 0 the L2,1 norm has no gradient, so E starts at small noise.
    change = (
        torch.randn(clean.shape, generator=generator, device=clip.device)
        .mul_(1e-3)
        .requires_grad_(True)
    )
    adam = torch.optim.Adam([change], lr=lr)
    for _ in range(steps):
        moved = (clean + mask * change.clamp(-eps, eps)).clamp(0, 1)
        loss = sign * F.cross_entropy(worst.score(moved), wanted, reduction="none")
        size = (mask * change).flatten(2).norm(dim=2).sum(1)
        adam.zero_grad()
        (change.grad,) = torch.autograd.grad(((weight * size + loss) * ~worst.won).sum(), change)
        adam.step()
    return worst.result()
