"""The Square attack: random squares that are kept where the answer gets worse; no gradients.

Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random
search", ECCV 2020, L-infinity. A clip is taken as an image of 3 T channels.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import UserError

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 steps, after how many the area of the squares is halved (released code)."""


def square_share(step: int, steps: int, first: float) -> float:
    """Return the share of the picture that a square covers at a step."""
    of_10000 = int(step / max(1, steps) * 10_000)
    return first / 2 ** sum(of_10000 > limit for limit in HALVINGS)


def square(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    max_queries: int = 5000,
    share: float = 0.8,
    generator: Generator | None = None,
) -> AttackResult:
    """Set random squares of every frame and channel to +-eps, and keep what lowers the margin.

    Starts from vertical stripes of +-eps (section 3.3). A clip that is won is asked about no more.

    Args:
        model, clip, labels: as in `marey.attacks.attack`.
        eps: largest change of a value, in [0, 1].
        max_queries: answers per clip, the clean clip and the last check among them.
        share: of the picture covered by the first squares.
        generator: randomness; a fresh one with seed 0 when absent.
    """
    if max_queries < 3:
        raise UserError(
            f"max_queries counts the clean clip and the last check too: at least 3, got "
            f"{max_queries}"
        )
    generator = generator or Generator(device=clip.device).manual_seed(0)
    worst = WorstCase(model, clip, labels)
    B, T, C, H, W = clip.shape
    clean = clip.float() / 255

    def signs(*shape: int) -> Tensor:
        drawn = torch.randint(0, 2, shape, generator=generator, device=clip.device)
        return drawn.float().mul_(2).sub_(1)

    change = eps * signs(B, T, C, 1, W).expand(B, T, C, H, W).contiguous()
    steps = max_queries - 3
    with torch.no_grad():
        rows = worst.open_rows
        if len(rows):
            worst.score((clean + change).clamp(0, 1)[rows], rows)
        for step in range(steps):
            rows = worst.open_rows
            if not len(rows):
                break
            side = max(1, round((square_share(step, steps, share) * H * W) ** 0.5))
            side = min(side, H - 1, W - 1) if min(H, W) > 1 else 1
            trial = change[rows].clone()
            for i in range(len(rows)):
                top = int(torch.randint(0, H - side + 1, (1,), generator=generator))
                left = int(torch.randint(0, W - side + 1, (1,), generator=generator))
                trial[i, :, :, top : top + side, left : left + side] = eps * signs(T, C, 1, 1)
            before = worst.margin[rows].clone()
            worst.score((clean[rows] + trial).clamp(0, 1), rows)
            kept = worst.margin[rows] > before
            change[rows[kept]] = trial[kept]
    return worst.result()
