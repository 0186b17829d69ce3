"""Whether two methods differ, are equivalent, or cannot be told apart, over videos and seeds.

    found = crossed_difference(gains, groups)
    verdict(found, margin=0.02)          # "helps", "hurts", "equivalent" or "undecided"

Every seed of either method answers the same videos, so a difference varies with the videos and with
the seeds. Both variances are added; what a seed does to single videos is counted in both, which
makes the interval a little too wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from marey.metrics.intervals import t_quantile


@dataclass(frozen=True, kw_only=True)
class CrossedDifference:
    """A mean difference with its standard error over groups of videos and seeds."""

    mean: float
    standard_error: float
    degrees: int
    """Of Student's t, by Satterthwaite's rule."""
    num_groups: int
    num_seeds: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval at a level."""
        half = t_quantile((1 + level) / 2, self.degrees) * self.standard_error
        return self.mean - half, self.mean + half


def crossed_difference(gains: Tensor, groups: Sequence[Any] | None = None) -> CrossedDifference:
    """Return the mean difference of two methods over seeds and videos.

    The variance over groups is that of the seeds' mean gain, cluster-robust with the factor
    G / (G - 1); where no video changes, one pseudo-group at -1 and one at 1 is added, as in
    `intervals.difference_interval`. The variance over seeds is that of the videos' mean gain.

    Args:
        gains: (S, N), correct in B less correct in A, of S seeds on the same N videos.
        groups: scene or person of each video; None: every video is its own.

    Raises:
        ValueError: if there are fewer than two groups.
    """
    gains = gains.double()
    S, N = gains.shape
    names = list(range(N)) if groups is None else list(groups)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    G = len(numbers)
    if G < 2:
        raise ValueError(f"a difference varies over groups, got {G}; expected at least 2")

    per_video, mean = gains.mean(0), float(gains.mean())
    units = torch.tensor([numbers[name] for name in names])
    sums = torch.zeros(G, dtype=torch.double).index_add_(0, units, (per_video - mean) / N)
    over_groups = float(sums.square().sum()) * G / (G - 1)
    if over_groups < 1e-18:
        over_groups = 2 / (G + 1) / (G + 2)

    over_seeds = float(gains.mean(1).var()) / S if S > 1 else 0.0
    variance = over_groups + over_seeds
    spread = over_groups**2 / (G - 1) + (over_seeds**2 / (S - 1) if S > 1 else 0.0)
    degrees = max(1, int(variance**2 / spread))
    return CrossedDifference(
        mean=mean,
        standard_error=math.sqrt(variance),
        degrees=degrees,
        num_groups=G,
        num_seeds=S,
    )


def verdict(found: CrossedDifference, margin: float, *, level: float = 0.95) -> str:
    """Return what a difference shows, by a margin that was stated beforehand.

    "helps" or "hurts": the interval at `level` leaves out 0. Else "equivalent": two one-sided tests
    at 5 % (Schuirmann, 1987), that is, the 90 % interval lies within ± `margin`. Else "undecided".
    """
    low, high = found.interval(level)
    if low > 0:
        return "helps"
    if high < 0:
        return "hurts"
    low, high = found.interval(0.90)
    return "equivalent" if -margin < low and high < margin else "undecided"


def margin_from_power(
    num_videos: int, discordant: float, *, alpha: float = 0.05, power: float = 0.80
) -> float:
    """Return the smallest margin at which two equal methods are called equivalent with `power`.

    Where a share `discordant` of the videos is right in one method only, the difference has the
    standard error sqrt(discordant / num_videos), and the two one-sided tests need
    (z(1 - alpha) + z((1 + power) / 2)) of them (Chow, Shao and Wang, "Sample Size Calculations in
    Clinical Research", section 4.2).

    Args:
        num_videos: N.
        discordant: assumed share, 0..1.
    """
    normal = NormalDist()
    errors = normal.inv_cdf(1 - alpha) + normal.inv_cdf((1 + power) / 2)
    return errors * math.sqrt(discordant / num_videos)
