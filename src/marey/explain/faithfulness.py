"""Faithfulness of a map: deletion and insertion (Petsiuk et al., 2018, section 4.3), against random
maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Model input (B, T, 3, S, S) -> probability of the explained class, (B,)."""


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Areas under the curves of probability against the share of patches changed."""

    deletion: float
    """Most relevant patches blurred first: lower is better."""
    insertion: float
    """Most relevant patches shown first on a blurred clip: higher is better."""
    random_deletion: float
    """The same for random maps, mean over several."""
    random_insertion: float
    """The same for random maps, mean over several."""

    @property
    def better_than_random(self) -> bool:
        """Whether the map beats random maps on both scores."""
        return self.deletion < self.random_deletion and self.insertion > self.random_insertion

    def to_dict(self) -> dict[str, Any]:
        """Return the scores and the verdict as JSON types."""
        return {
            "deletion": round(self.deletion, 4),
            "insertion": round(self.insertion, 4),
            "random_deletion": round(self.random_deletion, 4),
            "random_insertion": round(self.random_insertion, 4),
            "better_than_random": self.better_than_random,
        }


def deletion_insertion(
    score: Score,
    clip: Tensor,
    relevance: Tensor,
    *,
    steps: int = 10,
    random_maps: int = 3,
    generator: torch.Generator | None = None,
) -> Faithfulness:
    """Measure a map by changing patches in its order, and random maps beside it.

    Departure from the source, which deletes to grey: deleted patches take the value of a strongly
    blurred clip, which is nearer to what the model was trained on; both curves use it.

    Args:
        score: the model with its softmax and class chosen.
        clip: float, (T, 3, S, S), as the model takes it.
        relevance: (T, h, w).
        steps: points of each curve.
        random_maps: how many random maps are averaged.
        generator: randomness of the random maps.
    """
    blurred = blurred_clip(clip)
    mine = _curves(score, clip, blurred, relevance, steps)
    others = [
        _curves(score, clip, blurred, torch.rand(relevance.shape, generator=generator), steps)
        for _ in range(random_maps)
    ]
    return Faithfulness(
        deletion=mine[0],
        insertion=mine[1],
        random_deletion=sum(o[0] for o in others) / random_maps,
        random_insertion=sum(o[1] for o in others) / random_maps,
    )


def _curves(
    score: Score, clip: Tensor, blurred: Tensor, relevance: Tensor, steps: int
) -> tuple[float, float]:
    """Return the areas under the deletion and the insertion curve, both in [0, 1]."""
    order = relevance.flatten().argsort(descending=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    shares = torch.linspace(0, 1, steps + 1)
    masks = torch.stack(
        [(rank < round(float(share) * len(rank))).view(relevance.shape) for share in shares]
    ).float()
    masks = F.interpolate(masks, size=tuple(clip.shape[-2:]), mode="nearest")[
        :, :, None
    ]  # (steps+1, T, 1, S, S)
    areas = []
    for inside, outside in ((blurred, clip), (clip, blurred)):
        probabilities = torch.cat(
            [score((mask * inside + (1 - mask) * outside)[None]) for mask in masks]
        )
        areas.append(float(torch.trapezoid(probabilities.double(), dx=1 / steps)))
    return areas[0], areas[1]


def blurred_clip(clip: Tensor) -> Tensor:
    """Blur a clip until only the mean colour of each region is left."""
    S = clip.shape[-1]
    small = F.interpolate(clip, size=max(2, S // 32), mode="area")
    return F.interpolate(small, size=tuple(clip.shape[-2:]), mode="bilinear")


@torch.inference_mode()
def frame_importance(score: Score, clip: Tensor) -> Tensor:
    """Return how much the probability falls when each frame is replaced by its neighbour, (T,).

    The replacement is the frame before (for the first frame, the one after), so the clip holds no
    new content.
    """
    T = clip.shape[0]
    whole = score(clip[None])[0]
    changes = []
    for t in range(T):
        without = clip.clone()
        without[t] = clip[t - 1] if t > 0 else clip[min(1, T - 1)]
        changes.append(whole - score(without[None])[0])
    return torch.stack(changes)
