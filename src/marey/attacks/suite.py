"""A model under a threat model: every attack of it, each on the clips that still stand."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from marey.attacks import ATTACKS, attack
from marey.attacks.pixel_model import PixelModel
from marey.attacks.threat_models import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Withstood:
    """What is left of a model under one threat model."""

    robust: Tensor
    """bool, (B,): right before and after every attack."""
    right: Tensor
    """bool, (B,): right before."""
    won_by: list[str | None]
    """For each clip the first attack that won; None where none did or it was wrong before."""
    queries: Tensor
    """int64, (B,): questions about each clip over all attacks."""
    most_queries: int
    """The most questions that one attack asked about one clip."""


def withstand(
    model: PixelModel, clip: Tensor, labels: Tensor, threat: ThreatModel, *, seed: int = 0
) -> Withstood:
    """Run the attacks of a threat model in their order; a clip that is won is left alone.

    Args:
        model, clip, labels: as in `marey.attacks.attack`.
        threat: names the attacks and their options.
        seed: of all randomness.
    """
    with torch.no_grad():
        right = model(clip.float() / 255).argmax(1) == labels
    standing = right.clone()
    won_by: list[str | None] = [None] * len(clip)
    queries = torch.ones(len(clip), dtype=torch.int64)
    most = 1
    for name in threat.attacks:
        rows = standing.nonzero()[:, 0]
        if not len(rows):
            break
        options: dict[str, Any] = threat.options(name)
        if "generator" in inspect.signature(ATTACKS[name]).parameters:
            options["generator"] = Generator(device=clip.device).manual_seed(seed)
        result = attack(model, clip[rows], labels[rows], name, **options)
        queries[rows.cpu()] += result.queries_per_clip
        most = max(most, int(result.queries_per_clip.max()))
        for row in rows[result.success].tolist():
            won_by[row] = name
        standing[rows[result.success]] = False
    return Withstood(
        robust=standing, right=right, won_by=won_by, queries=queries, most_queries=most
    )
