"""Whether a map of joints and moments deserves to be believed: as `explain.checks` for pictures,
with parts of the body left out in place of patches.

    checks = check_window_map(score, window, relevance, generator=generator)

Legend: T moments, P persons, 13 parts (`transforms.keypoints.PART_NAMES`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.explain.checks import (
    ORDERS,
    RANDOM_MAPS,
    STEPS,
    MapChecks,
    verdict_of,
)
from marey.explain.faithfulness import Score
from marey.transforms.keypoints import HEAD, NUM_KEYPOINTS

PARTS = (HEAD, *((number,) for number in range(len(HEAD), NUM_KEYPOINTS)))
"""Keypoints of each part."""


def check_window_map(
    score: Score,
    window: Tensor,
    relevance: Tensor,
    *,
    random_maps: int = RANDOM_MAPS,
    shuffled_map: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> MapChecks:
    """Compare a map with random maps, a map of the middle moments, random orders of the moments and
    the map that shuffled weights give.

    Args:
        score: windows (N, T, P * 17, 3) -> probability of the class (N,).
        window: float, (T, P * 17, 3); the map is of its first person.
        relevance: (T, 13).
        random_maps: half independent, half smooth over time.
        shuffled_map: the map of the same model with shuffled weights.
        generator: of all random maps and orders.
    """
    half = max(1, random_maps // 2)
    T, parts = relevance.shape
    independent = [torch.rand(T, parts, generator=generator) for _ in range(half)]
    smooth = [smooth_moments(T, parts, generator) for _ in range(half)]
    middle = torch.exp(-2 * torch.linspace(-1, 1, T)[:, None] ** 2).expand(T, parts)
    gains = window_gains(score, window, [relevance, middle, *independent, *smooth])
    orders = [relevance.sum(1).argsort(descending=True)]
    orders += [torch.randperm(T, generator=generator) for _ in range(min(ORDERS, random_maps))]
    means = moments_left_out(score, window, orders)
    return verdict_of(gains, means, relevance, shuffled_map)


def with_parts(window: Tensor, seen: Tensor) -> Tensor:
    """Return a window (T, P * 17, 3) of which only the parts `seen`, bool (T, 13), are left of the
    first person."""
    hidden = window.clone()
    for number, keypoints in enumerate(PARTS):
        for keypoint in keypoints:
            hidden[:, keypoint] = hidden[:, keypoint] * seen[:, number, None]
    return hidden


def smooth_moments(T: int, parts: int, generator: torch.Generator | None = None) -> Tensor:
    """Return a random map (T, parts) that changes slowly over time."""
    coarse = torch.rand(1, parts, max(2, T // 4), generator=generator)
    return F.interpolate(coarse, size=T, mode="linear", align_corners=True)[0].T


def window_gains(score: Score, window: Tensor, maps: list[Tensor]) -> list[float]:
    """Return the gain of each map: insertion less deletion, trapezoids over `STEPS` steps."""
    everything = torch.ones(maps[0].shape, dtype=torch.bool)
    shown = [window, with_parts(window, ~everything)]
    for relevance in maps:
        order = relevance.flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        for step in range(1, STEPS):
            first = (rank < round(step / STEPS * len(rank))).view(relevance.shape)
            shown += [with_parts(window, ~first), with_parts(window, first)]
    values = score(torch.stack(shown)).double()
    ends, between = values[:2], values[2:].view(len(maps), STEPS - 1, 2)
    deletion = torch.cat(
        (ends[:1].expand(len(maps), 1), between[..., 0], ends[1:].expand(len(maps), 1)), 1
    )
    insertion = torch.cat(
        (ends[1:].expand(len(maps), 1), between[..., 1], ends[:1].expand(len(maps), 1)), 1
    )
    areas = torch.trapezoid(insertion - deletion, dx=1 / STEPS, dim=1)
    return areas.tolist()


def moments_left_out(score: Score, window: Tensor, orders: list[Tensor]) -> list[float]:
    """Return for each order of the moments the mean probability while nobody is seen in the first
    ones, a quarter, a half and three quarters of them."""
    shown = []
    for order in orders:
        for step in range(1, STEPS):
            hidden = window.clone()
            hidden[order[: round(step / STEPS * len(order))]] = 0
            shown.append(hidden)
    return score(torch.stack(shown)).double().view(len(orders), STEPS - 1).mean(1).tolist()
