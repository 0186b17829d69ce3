"""Auto-PGD: gradient steps whose size adapts to the progress, on three losses.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", ICML 2020 (AutoAttack), L-infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import UserError

MOMENTUM = 0.75
"""alpha of the paper: weight of the new step against the last one."""
PROGRESS = 0.75
"""rho of the paper: share of steps that must have raised the loss, else the step is halved."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels or targets (B,)) -> what is raised, (B,)."""


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio, (B,): above 0 the answer is wrong.

    Eq. 6:  DLR = -(z_y - max_{i != y} z_i) / (z_1st - z_3rd), invariant to shift and scale of the
    logits. With two classes there is no third logit: the difference itself, of which only the sign
    of the gradient is used.
    """
    ranked = logits.sort(1, descending=True).values
    own = logits.gather(1, labels[:, None])[:, 0]
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    if logits.shape[1] < 3:
        return other - own
    return (other - own) / (ranked[:, 0] - ranked[:, 2]).clamp(min=1e-12)


def targeted_dlr_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio, (B,).

    Eq. 7:  -(z_y - z_t) / (z_1st - (z_3rd + z_4th) / 2). With three classes z_3rd alone stands
    below, with two nothing, as in `dlr_loss`.
    """
    ranked = logits.sort(1, descending=True).values
    own = logits.gather(1, labels[:, None])[:, 0]
    wanted = logits.gather(1, targets[:, None])[:, 0]
    if logits.shape[1] < 3:
        return wanted - own
    low = ranked[:, 2] if logits.shape[1] == 3 else (ranked[:, 2] + ranked[:, 3]) / 2
    return (wanted - own) / (ranked[:, 0] - low).clamp(min=1e-12)


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which the step size is looked at.

    Section 3.2:  w_j = ceil(p_j N),  p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03,
    .06).
    """
    found, before, now = [0], 0.0, 0.22
    while now <= 1:
        step = math.ceil(round(now * steps, 6))
        if step > found[-1]:
            found.append(step)
        before, now = now, now + max(now - before - 0.03, 0.06)
    return found


def apgd_ce(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 100,
    restarts: int = 1,
    generator: Generator | None = None,
) -> AttackResult:
    """Climb the cross-entropy by Auto-PGD.

    Its gradient vanishes where probabilities round to 0 and 1: scaled logits defeat it
    (`masking.masking_evidence` shows when), and `apgd_dlr` does not mind.

    Args:
        model, clip, labels: as in `marey.attacks.attack`.
        eps: largest change of a value, in [0, 1].
        steps: gradients per restart.
        restarts: random starts.
        generator: randomness of the starts; a fresh one with seed 0 when absent.
    """
    worst = WorstCase(model, clip, labels)
    generator = generator or Generator(device=clip.device).manual_seed(0)
    for _ in range(restarts):
        _climb(worst, _cross_entropy, labels, eps, steps, generator)
    return worst.result()


def apgd_dlr(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 100,
    restarts: int = 1,
    generator: Generator | None = None,
) -> AttackResult:
    """Climb the difference of logits ratio by Auto-PGD (`dlr_loss`); arguments as in `apgd_ce`."""
    worst = WorstCase(model, clip, labels)
    generator = generator or Generator(device=clip.device).manual_seed(0)
    for _ in range(restarts):
        _climb(worst, dlr_loss, labels, eps, steps, generator)
    return worst.result()


def apgd_t(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    steps: int = 100,
    num_targets: int = 9,
    generator: Generator | None = None,
) -> AttackResult:
    """Climb the targeted difference of logits ratio, one run for each likely wrong class.

    Args:
        model, clip, labels, eps, steps, generator: as in `apgd_ce`.
        num_targets: wrong classes, the likeliest on the clean clip first; at most K - 1.
    """
    worst = WorstCase(model, clip, labels)
    generator = generator or Generator(device=clip.device).manual_seed(0)
    for targets in likely_targets(worst, num_targets):
        loss = partial(_targeted, labels=labels[worst.open_rows])
        _climb(worst, loss, targets, eps, steps, generator)
    return worst.result()


def _targeted(logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    return targeted_dlr_loss(logits, labels, targets)


def likely_targets(worst: WorstCase, count: int) -> list[Tensor]:
    """Return the `count` likeliest wrong classes of each clean clip, each int64 (B,).

    Asks the model once more about each clip.
    """
    if count < 1:
        raise UserError(f"num_targets is a count from 1 up, got {count}")
    rows = torch.arange(len(worst.clean), device=worst.clean.device)
    with torch.no_grad():
        logits = worst.ask(worst.clean.float() / 255, rows)
    wrong = logits.scatter(1, worst.labels[:, None], -torch.inf)
    count = min(count, logits.shape[1] - 1)
    return list(wrong.topk(count, dim=1).indices.unbind(1))


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _climb(
    worst: WorstCase, loss: Loss, classes: Tensor, eps: float, steps: int, generator: Generator
) -> None:
    """Run Auto-PGD on the samples that are not won yet (Algorithm 1).

    Args:
        worst: keeps the worst candidates.
        loss: is raised; its second argument is `classes` of the samples.
        classes: labels or targets of all samples, (B,).
    """
    if not (eps > 0 and steps >= 1):
        raise UserError(f"an attack needs eps > 0 and steps >= 1, got eps={eps}, steps={steps}")
    rows = worst.open_rows
    if not len(rows):
        return
    clean, classes = worst.clean[rows].float() / 255, classes[rows]
    low, high = (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)
    n = len(rows)

    def inside(moved: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(moved, low), high)

    def look(moved: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (n,) and its gradient."""
        moved = moved.detach().requires_grad_(True)
        values = loss(worst.score(moved, rows), classes)
        (gradient,) = torch.autograd.grad(values.sum(), moved)
        return values.detach(), gradient

    start = torch.rand(clean.shape, generator=generator, device=clean.device)
    moved = inside(clean + eps * start.mul_(2).sub_(1))
    before = moved.clone()
    value, gradient = look(moved)
    best, best_value, best_gradient = moved.clone(), value.clone(), gradient.clone()

    step = torch.full((n,), 2 * eps, device=clean.device)
    rises = torch.zeros(n, device=clean.device)
    step_then, value_then = step.clone(), best_value.clone()
    marks = checkpoints(steps)
    last = 0
    for number in range(1, steps):
        size = step.view(-1, 1, 1, 1, 1)
        ahead = inside(moved + size * gradient.sign())
        if number > 1:
            # The new step and the last one, mixed.
            mixed = moved + MOMENTUM * (ahead - moved) + (1 - MOMENTUM) * (moved - before)
            ahead = inside(mixed)
        before, moved = moved, ahead
        previous = value
        value, gradient = look(moved)
        rises += value > previous

        better = value > best_value
        mask = better.view(-1, 1, 1, 1, 1)
        best = torch.where(mask, moved, best)
        best_gradient = torch.where(mask, gradient, best_gradient)
        best_value = torch.where(better, value, best_value)

        if number in marks:
            # Condition 1: too few steps raised the loss; condition 2: neither step nor best moved.
            few = rises < PROGRESS * (number - last)
            stuck = (step == step_then) & (best_value == value_then)
            halve = few | stuck
            step_then, value_then = step.clone(), best_value.clone()
            step = torch.where(halve, step / 2, step)
            mask = halve.view(-1, 1, 1, 1, 1)
            moved = torch.where(mask, best, moved)
            before = torch.where(mask, best, before)
            gradient = torch.where(mask, best_gradient, gradient)
            rises.zero_()
            last = number
