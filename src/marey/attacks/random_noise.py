"""Random corners of the box: the control that every attack must beat."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import UserError


def random_noise(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    max_queries: int = 100,
    generator: Generator | None = None,
) -> AttackResult:
    """Change every value by +-eps at random, again and again; the worst draw counts.

    Args:
        model, clip, labels: as in `marey.attacks.attack`; only answers are used.
        eps: change of a value, in [0, 1].
        max_queries: answers per clip, the clean clip and the last check among them.
        generator: randomness; a fresh one with seed 0 when absent.
    """
    if max_queries < 3:
        raise UserError(f"max_queries is at least 3, got {max_queries}")
    generator = generator or Generator(device=clip.device).manual_seed(0)
    worst = WorstCase(model, clip, labels)
    with torch.no_grad():
        for _ in range(max_queries - 2):
            rows = worst.open_rows
            if not len(rows):
                break
            clean = clip[rows].float() / 255
            signs = torch.randint(0, 2, clean.shape, generator=generator, device=clip.device)
            worst.score((clean + eps * (2.0 * signs - 1)).clamp(0, 1), rows)
    return worst.result()
