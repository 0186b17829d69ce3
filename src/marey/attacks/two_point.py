"""Gradients estimated from two answers along one direction: the loop of the black-box video
attacks, which differ in how they draw the direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.attacks.flickering import flicker_loss
from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import UserError

QUERIES_OF_A_STEP = 3
"""Two probes and one score."""


def two_point_ascent(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    draw_direction: Callable[[], Tensor],
    *,
    eps: float,
    step: float,
    probe: float,
    exploration: float,
    rate: float,
    max_queries: int,
    targets: Tensor | None = None,
) -> AttackResult:
    r"""Estimate the gradient from three answers a step; a clip that is won is asked about no more.

    Ilyas et al., "Prior convictions", ICLR 2019, as in the released code of Geo-TRAP:

        w_{1,2} = g +- exploration r
        g += rate (l(X + probe w_1 / |w_1|) - l(X + probe w_2 / |w_2|)) / (exploration probe) r
        X -= step sign(g), projected on +- eps

    |.| is the L2 norm of a frame. The loss is that of `flickering`, cross-entropy for a target.

    Args:
        model, clip, labels, targets: as in `marey.attacks.attack`.
        draw_direction: r of a step, (B, T, C, H, W).
        eps: largest change of a value, in [0, 1].
        step, probe, exploration, rate: see the equations.
        max_queries: answers per clip, the clean clip and the last check among them.

    Raises:
        UserError: if the queries do not suffice for one step.
    """
    if max_queries < 2 + QUERIES_OF_A_STEP:
        raise UserError(
            f"max_queries={max_queries}: a step asks {QUERIES_OF_A_STEP} times, the clean clip and "
            f"the last check once each; give at least {2 + QUERIES_OF_A_STEP}"
        )
    worst = WorstCase(model, clip, labels, targets)
    clean = clip.float() / 255
    moved, gradient = clean.clone(), torch.zeros_like(clean)

    def loss(moved: Tensor, rows: Tensor) -> Tensor:
        logits = worst.ask(moved, rows)
        if targets is not None:
            return F.cross_entropy(logits, targets[rows], reduction="none")
        return flicker_loss(logits, labels[rows])

    with torch.no_grad():
        for _ in range((max_queries - 2) // QUERIES_OF_A_STEP):
            rows = worst.open_rows
            if not len(rows):
                break
            direction = draw_direction()[rows]
            ahead, behind = (
                _per_frame_unit(gradient[rows] + sign * exploration * direction) for sign in (1, -1)
            )

            # The slope along the direction, from two answers, moves the running estimate of the
            # gradient.
            difference = loss(moved[rows] + probe * ahead, rows)
            difference = difference - loss(moved[rows] + probe * behind, rows)
            slope = (difference / (exploration * probe)).view(-1, 1, 1, 1, 1)
            gradient[rows] = gradient[rows] + rate * slope * direction

            ahead = moved[rows] - step * gradient[rows].sign()
            low, high = clean[rows] - eps, clean[rows] + eps
            moved[rows] = torch.minimum(torch.maximum(ahead, low), high).clamp(0, 1)
            worst.score(moved[rows], rows)
    return worst.result()


def _per_frame_unit(direction: Tensor) -> Tensor:
    return direction / direction.flatten(2).norm(dim=2).clamp(min=1e-8)[..., None, None, None]
