"""The flickering attack: one colour offset per frame, the same for all its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase


def flicker_loss(
    logits: Tensor, labels: Tensor, targets: Tensor | None = None, margin: float = 0.05
) -> Tensor:
    """Return the adversarial loss of each sample, (B,), 0 once the attack has won by `margin` in
    probability.

    Pony et al., CVPR 2021:  l = max(0, min(lm^2 / m, lm)),  lm = p_y - max_{j != y} p_j + m.
    """
    probs = logits.softmax(1)
    wanted = labels if targets is None else targets
    own = probs.gather(1, wanted[:, None])[:, 0]
    other = probs.scatter(1, wanted[:, None], -1.0).amax(1)
    lead = (own - other if targets is None else other - own) + margin
    return torch.minimum(lead.square() / margin, lead).clamp(min=0)


def thickness(offset: Tensor) -> Tensor:
    """Return ||delta||^2 / (3 T) of each sample; offset is (B, T, 3)."""
    return offset.square().mean((1, 2))


def roughness(offset: Tensor) -> Tensor:
    """Return the mean squared first and second difference in time, cyclic, of each sample; offset
    is (B, T, 3)."""
    first = offset - offset.roll(1, dims=1)
    second = offset.roll(-1, dims=1) - 2 * offset + offset.roll(1, dims=1)
    return (first.square() + second.square()).mean((1, 2))


def flickering(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 32 / 255,
    weight: float = 1.0,
    lr: float = 5e-3,
    steps: int = 60,
    targets: Tensor | None = None,
) -> AttackResult:
    """Find the offsets by Adam on  l_adv + weight (thickness / 2 + roughness / 2).

    Pony et al., "Over-the-Air Adversarial Flickering Attacks against Video Recognition Networks",
    CVPR 2021. The paper takes Adam with lr 1e-3 and many more steps; ours bounds the offset
    instead, for a budget in pixel units.

    Args:
        model, clip, labels, targets: as in `marey.attacks.attack`.
        eps: largest offset, in [0, 1].
        weight: of the regularisation.
        lr: Adam's step.
        steps: gradients.
    """
    B, T = clip.shape[:2]
    worst = WorstCase(model, clip, labels, targets)
    clean = clip.float() / 255
    offset = torch.zeros(B, T, 3, device=clip.device, requires_grad=True)
    adam = torch.optim.Adam([offset], lr=lr)

    for _ in range(steps):
        bounded = offset.clamp(-eps, eps)
        logits = worst.score((clean + bounded[..., None, None]).clamp(0, 1))
        loss = flicker_loss(logits, labels, targets) + weight * 0.5 * (
            thickness(offset) + roughness(offset)
        )
        adam.zero_grad()
        (offset.grad,) = torch.autograd.grad(loss.sum(), offset)
        adam.step()

    # The last step has not been scored yet.
    with torch.no_grad():
        worst.score((clean + offset.clamp(-eps, eps)[..., None, None]).clamp(0, 1))
    return worst.result()
