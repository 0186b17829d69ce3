"""Whether a map deserves to be believed: random maps, a blob in the middle, a model without what it
learned, and frames left out in the map's order.

    checks = check_map(score, clip, relevance, generator=generator)
    checks.p_value, checks.passed

A map is measured by its gain, the area under the insertion curve less that under the deletion curve
(Petsiuk et al., "RISE", 2018, section 4.3). A random map has the gain of chance; smooth random maps
are the harder control, because whole regions go at once, as in most maps. Videos show people in the
middle, so a map that only says "the middle" is no explanation: the blob.

Legend: T frames, h x w patches.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.explain.faithfulness import Score, blurred_clip

RANDOM_MAPS = 100
"""Half with independent patches, half smooth."""
STEPS = 4
"""Points of each curve after the first."""
ORDERS = 40
"""Most random orders of the frames."""
LEVEL = 0.05
SAME_MAP = 0.5
"""Rank correlation from which the map of a model with shuffled weights counts as the same map."""
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class MapChecks:
    """What the checks of one map found."""

    gain: float
    """Insertion less deletion, -1..1."""
    p_independent: float
    """Share of random maps with independent patches that gain as much, the map itself counted."""
    p_smooth: float
    """The same for smooth random maps."""
    blob_gain: float
    """Gain of a blob in the middle of every frame."""
    temporal_deletion: float
    """Mean probability while frames are replaced by kept ones in the map's order; lower is
    better."""
    p_temporal: float
    """Share of random orders of the frames with as low a mean."""
    weights_correlation: float | None
    """Rank correlation with the map of the same model with shuffled weights; None where it was not
    measured."""
    random_maps: int

    @property
    def p_value(self) -> float:
        """The larger of both p-values."""
        return max(self.p_independent, self.p_smooth)

    @property
    def passed(self) -> bool:
        """Whether the map beats both kinds of random maps at 5 % and the blob, and depends on the
        weights."""
        depends = self.weights_correlation is None or self.weights_correlation < SAME_MAP
        return self.p_value <= LEVEL and self.gain > self.blob_gain and depends

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and the verdict as JSON types."""
        numbers = {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }
        return {**numbers, "p_value": round(self.p_value, 4), "passed": self.passed}


def check_map(
    score: Score,
    clip: Tensor,
    relevance: Tensor,
    *,
    random_maps: int = RANDOM_MAPS,
    shuffled_map: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> MapChecks:
    """Compare a map with random maps, a blob, random orders of the frames and a model's map with
    shuffled weights.

    Args:
        score: the model with its softmax and class chosen, through the path that decides.
        clip: float, (T, 3, S, S), as the model takes it.
        relevance: (T, h, w).
        random_maps: half independent, half smooth; the smallest p-value is 1 / (half + 1).
        shuffled_map: the map that `shuffled_weights` of the model gives.
        generator: of all random maps and orders.
    """
    half = max(1, random_maps // 2)
    T, h, w = relevance.shape
    independent = [torch.rand(T, h, w, generator=generator) for _ in range(half)]
    smooth = [smooth_map(T, h, w, generator) for _ in range(half)]
    gains = map_gains(score, clip, [relevance, centred_blob(T, h, w), *independent, *smooth])
    frames = relevance.flatten(1).sum(1)
    orders = [frames.argsort(descending=True)]
    orders += [torch.randperm(T, generator=generator) for _ in range(min(ORDERS, random_maps))]
    means = temporal_deletions(score, clip, orders)
    return verdict_of(gains, means, relevance, shuffled_map)


def verdict_of(
    gains: list[float], means: list[float], relevance: Tensor, shuffled_map: Tensor | None
) -> MapChecks:
    """Compare the numbers of a map with those of the others.

    Args:
        gains: of the map, of the one of the middle, and of the random maps, first the independent
            half, then the smooth one.
        means: probability while frames are left out in the map's order, and in random orders.
        relevance, shuffled_map: as in `check_map`, any shape.
    """
    half = (len(gains) - 2) // 2
    correlation = None if shuffled_map is None else rank_correlation(relevance, shuffled_map)
    return MapChecks(
        gain=gains[0],
        p_independent=share_at_least(gains[2 : 2 + half], gains[0]),
        p_smooth=share_at_least(gains[2 + half :], gains[0]),
        blob_gain=gains[1],
        temporal_deletion=means[0],
        p_temporal=share_at_least([-value for value in means[1:]], -means[0]),
        weights_correlation=correlation,
        random_maps=2 * half,
    )


def share_at_least(others: list[float], own: float) -> float:
    """Return the permutation p-value: (1 + those at least as large) / (1 + all)."""
    return (1 + sum(value >= own - 1e-9 for value in others)) / (1 + len(others))


def smooth_map(T: int, h: int, w: int, generator: torch.Generator | None = None) -> Tensor:
    """Return a random map without fine detail: a coarse one of random numbers, enlarged."""
    coarse = torch.rand(1, 1, max(2, T // 2), max(2, h // 3), max(2, w // 3), generator=generator)
    return F.interpolate(coarse, size=(T, h, w), mode="trilinear", align_corners=True)[0, 0]


def centred_blob(T: int, h: int, w: int) -> Tensor:
    """Return a map that is largest in the middle of every frame."""
    rows = torch.linspace(-1, 1, h)[:, None] if h > 1 else torch.zeros(1, 1)
    columns = torch.linspace(-1, 1, w)[None] if w > 1 else torch.zeros(1, 1)
    return torch.exp(-2 * (rows**2 + columns**2)).expand(T, h, w).clone()


@torch.inference_mode()
def map_gains(score: Score, clip: Tensor, maps: list[Tensor]) -> list[float]:
    """Return the gain of each map: insertion less deletion, trapezoids over `STEPS` steps."""
    blurred = blurred_clip(clip)
    ends = _probabilities(score, [clip, blurred])  # nothing and everything changed
    gains = []
    for relevance in maps:
        order = relevance.flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        changed = []
        for step in range(1, STEPS):
            mask = (rank < round(step / STEPS * len(rank))).view(relevance.shape).float()
            mask = F.interpolate(mask[None], size=tuple(clip.shape[-2:]), mode="nearest")[0]
            mask = mask[:, None]  # (T, 1, S, S)
            changed += [mask * blurred + (1 - mask) * clip, mask * clip + (1 - mask) * blurred]
        values = _probabilities(score, changed)
        deletion = [ends[0], *values[0::2], ends[1]]
        insertion = [ends[1], *values[1::2], ends[0]]
        areas = [torch.trapezoid(torch.tensor(v), dx=1 / STEPS) for v in (insertion, deletion)]
        gains.append(float(areas[0] - areas[1]))
    return gains


@torch.inference_mode()
def temporal_deletions(score: Score, clip: Tensor, orders: list[Tensor]) -> list[float]:
    """Return for each order of the frames the mean probability while its frames are replaced, one
    after the other, by the nearest frame that is kept; the last one stays."""
    T = len(clip)
    wanted = {frozenset(order[:count].tolist()) for order in orders for count in range(1, T)}
    subsets = sorted(wanted, key=sorted)
    clips = []
    for gone in subsets:
        kept = [t for t in range(T) if t not in gone]
        distance = (torch.arange(T)[:, None] - torch.tensor(kept)[None]).abs()
        nearest = torch.tensor(kept)[distance.argmin(1)]  # of two equally near the earlier
        clips.append(clip[nearest])
    found = dict(zip(subsets, _probabilities(score, clips), strict=True))
    return [
        sum(found[frozenset(order[:count].tolist())] for count in range(1, T)) / max(1, T - 1)
        for order in orders
    ]


def _probabilities(score: Score, clips: list[Tensor]) -> list[float]:
    values: list[float] = []
    for start in range(0, len(clips), BATCH):
        values += score(torch.stack(clips[start : start + BATCH])).double().tolist()
    return values


def shuffled_weights(model: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Return a copy of a model in which the values of every parameter change places: it has the
    same weights and has learned nothing.

    Adebayo et al., "Sanity Checks for Saliency Maps", 2018, section 3: a map that stays the same
    says nothing about what was learned.
    """
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            flat = parameter.flatten()
            order = torch.randperm(len(flat), generator=generator).to(flat.device)
            parameter.copy_(flat[order].view_as(parameter))
    return other


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Return Spearman's rank correlation of two maps of one shape; 0 where one is constant."""
    ranks = [part.flatten().double().argsort().argsort().double() for part in (first, second)]
    if float(first.std()) == 0 or float(second.std()) == 0:
        return 0.0
    centred = [part - part.mean() for part in ranks]
    return float((centred[0] @ centred[1]) / (centred[0].norm() * centred[1].norm()))
