"""FGSM and projected gradient descent, L-infinity and L2, with restarts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import UserError


def _ascent(worst: WorstCase, moved: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
    """Score a candidate and return the gradient that makes the attack stronger, like `moved`."""
    moved = moved.detach().requires_grad_(True)
    logits = worst.score(moved)
    loss = F.cross_entropy(logits, labels if targets is None else targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, moved)
    return gradient if targets is None else -gradient


def _norm(values: Tensor) -> Tensor:
    """Return the L2 norm of each sample, (B, 1, 1, 1, 1)."""
    return values.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)


def fgsm(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    targets: Tensor | None = None,
) -> AttackResult:
    """Take one step along the sign of the gradient.

        X' = clip(X + eps sign(grad_X l)), towards a target: minus

    Goodfellow et al., ICLR 2015, Eq. of section 3.

    Args:
        model, clip, labels: as in `marey.attacks.attack`.
        eps: largest change of a value, in [0, 1].
        targets: int, (B,): the class to be answered instead.
    """
    _check_budget(eps, eps, 1, 1)
    worst = WorstCase(model, clip, labels, targets)
    clean = clip.float() / 255
    worst.score((clean + eps * _ascent(worst, clean, labels, targets).sign()).clamp(0, 1))
    return worst.result()


def pgd(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    step: float = 2 / 255,
    steps: int = 10,
    restarts: int = 1,
    random_start: bool = True,
    targets: Tensor | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    """Climb the loss inside a box.

        X_0 = X + U(-eps, eps),  X_k+1 = Proj_eps(X_k + step sign(grad))

    Madry et al., ICLR 2018, Eq. 2.

    Args:
        model, clip, labels, targets: as in `fgsm`.
        eps: largest change of a value, in [0, 1].
        step: change of a value per step.
        steps: gradients per restart.
        restarts: runs; without `random_start` the first begins at the clean clip.
        random_start: begin anywhere in the box.
        generator: randomness of the starts; a fresh one with seed 0 when absent.
    """
    _check_budget(eps, step, steps, restarts)
    generator = generator or Generator(device=clip.device).manual_seed(0)
    worst = WorstCase(model, clip, labels, targets)
    clean = clip.float() / 255
    for restart in range(restarts):
        moved = clean
        if random_start or restart > 0:
            start = (
                torch.rand(clean.shape, generator=generator, device=clean.device)
                .mul_(2 * eps)
                .sub_(eps)
            )
            moved = (clean + start).clamp(0, 1)

        for _ in range(steps):
            moved = moved + step * _ascent(worst, moved, labels, targets).sign()
            moved = torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)

        # Each step scored the candidate it started from, so the last one is still to be scored.
        with torch.no_grad():
            worst.score(moved)
    return worst.result()


def pgd_l2(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 4.0,
    step: float = 1.0,
    steps: int = 10,
    restarts: int = 1,
    random_start: bool = False,
    targets: Tensor | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    """Climb the loss inside a ball.

        X_k+1 = Proj(X_k + step g / ||g||_2), projected on ||X - X_0||_2 <= eps

    Madry et al., ICLR 2018, Eq. 2, with the L2 norm. A change below one grey level everywhere
    vanishes in the uint8 clip and scores as the clean one.

    Args:
        model, clip, labels, steps, restarts, targets, generator: as in `pgd`.
        eps: radius over all values of the clip, each in [0, 1].
        step: length of a step, same unit.
        random_start: begin at a random point of the ball's surface.
    """
    _check_budget(eps, step, steps, restarts)
    generator = generator or Generator(device=clip.device).manual_seed(0)
    worst = WorstCase(model, clip, labels, targets)
    clean = clip.float() / 255
    for restart in range(restarts):
        moved = clean
        if random_start or restart > 0:
            direction = torch.randn(clean.shape, generator=generator, device=clean.device)
            moved = (clean + eps * direction / _norm(direction)).clamp(0, 1)

        for _ in range(steps):
            gradient = _ascent(worst, moved, labels, targets)
            change = moved + step * gradient / _norm(gradient).clamp(min=1e-12) - clean
            moved = (clean + change * (eps / _norm(change).clamp(min=1e-12)).clamp(max=1)).clamp(
                0, 1
            )

        with torch.no_grad():
            worst.score(moved)
    return worst.result()


def _check_budget(eps: float, step: float, steps: int, restarts: int) -> None:
    if not (eps > 0 and step > 0 and steps >= 1 and restarts >= 1):
        raise UserError(
            f"an attack needs eps > 0, step > 0, steps >= 1 and restarts >= 1, got eps={eps}, "
            f"step={step}, steps={steps}, restarts={restarts}"
        )
