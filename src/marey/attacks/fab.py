"""FAB: a walk along the decision border towards the clean clip, for the smallest change.

Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
ICML 2020; the targeted version of AutoAttack, L-infinity.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from marey.attacks.apgd import likely_targets
from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase

BISECTIONS = 40
OVERSHOOT = 1.05
"""eta of the paper: a little beyond the linearised border."""
BACKWARD = 0.9
"""beta of the paper: share of the way from the clean clip that is kept after a success."""
MAX_BIAS = 0.1
"""alpha_max of the paper: largest weight of the clean clip's projection."""


def fab(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 100,
    num_targets: int = 9,
    generator: Generator | None = None,
) -> AttackResult:
    """Look for the nearest clip of another class; it counts where it is within `eps`.

    The first target starts at the clean clip, the next ones at random points of the box of eps.

    Args:
        model, clip, labels: as in `marey.attacks.attack`.
        eps: largest change of a value, in [0, 1].
        steps: gradients per target.
        num_targets: wrong classes, the likeliest on the clean clip first.
        generator: randomness of the starts; a fresh one with seed 0 when absent.
    """
    generator = generator or Generator(device=clip.device).manual_seed(0)
    worst = WorstCase(model, clip, labels, eps=eps)
    for number, targets in enumerate(likely_targets(worst, num_targets)):
        rows = worst.open_rows
        if not len(rows):
            break
        clean = clip[rows].float() / 255
        start = clean
        if number:
            noise = torch.rand(clean.shape, generator=generator, device=clean.device)
            start = (clean + eps * noise.mul_(2).sub_(1)).clamp(0, 1)
        _walk(worst, rows, targets[rows], clean, start, steps)
    return worst.result()


def _walk(
    worst: WorstCase, rows: Tensor, targets: Tensor, clean: Tensor, moved: Tensor, steps: int
) -> None:
    """Take `steps` steps of FAB (Algorithm 1) for the samples in `rows`."""
    labels = worst.labels[rows]
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        logits = worst.score(moved, rows)
        own = logits.gather(1, labels[:, None])[:, 0]
        difference = logits.gather(1, targets[:, None])[:, 0] - own
        (gradient,) = torch.autograd.grad(difference.sum(), moved)
        moved, value = moved.detach(), difference.detach()

        # A clip beyond the border goes back towards the clean one.
        crossed = (value > 0).view(-1, 1, 1, 1, 1)
        back = clean + BACKWARD * (moved - clean)

        # Both clips are projected on the linearised border f(x_i) + <g, x - x_i> = 0.
        offset = value - (gradient * moved).flatten(1).sum(1)
        from_moved = project_linf(moved, gradient, offset) - moved
        from_clean = project_linf(clean, gradient, offset) - clean
        far, near = (d.abs().flatten(1).amax(1) for d in (from_moved, from_clean))
        bias = (far / (far + near).clamp(min=1e-12)).clamp(max=MAX_BIAS).view(-1, 1, 1, 1, 1)
        ahead = (1 - bias) * (moved + OVERSHOOT * from_moved)
        ahead = (ahead + bias * (clean + OVERSHOOT * from_clean)).clamp(0, 1)
        moved = torch.where(crossed, back, ahead)
    with torch.no_grad():
        worst.score(moved, rows)


def project_linf(point: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """Return the nearest point with <normal, x> + offset = 0 within [0, 1], in the largest change.

    The nearest point moves every value by the same d towards the plane, clipped to the box, and
    <normal, x> grows with d: d is found by bisection. Where the plane misses the box, the corner
    nearest to it.

    Args:
        point, normal: (B, ...), point in [0, 1].
        offset: (B,).
    """
    shape = (-1, *[1] * (point.dim() - 1))
    value = (normal * point).flatten(1).sum(1) + offset
    direction = -value.sign().view(shape) * normal.sign()
    low, high = torch.zeros_like(value), torch.ones_like(value)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        moved = (point + middle.view(shape) * direction).clamp(0, 1)
        there = (normal * moved).flatten(1).sum(1) + offset
        short = there.sign() == value.sign()
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return (point + high.view(shape) * direction).clamp(0, 1)
