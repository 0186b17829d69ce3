"""95% intervals of accuracies, differences and ratios, over videos or over groups of videos.

Videos of one scene or person are not independent, so the variance is taken between groups
(cluster-robust, with the factor G / (G - 1)) and the quantile from Student's t distribution.
`python -m benchmarks.intervals` simulates the coverage at 5 to 30 groups, beside the percentile
bootstrap and others: results/intervals.json.

Two rules for few groups. The degrees of freedom are counted from the groups that hold anything but
the commonest value: ten groups with errors in two of them know the variance from two.
Where all values are equal, the variance is zero and says nothing: a proportion then counts every
group as one answer, right or wrong as a whole, and takes the exact interval of so many answers
(Clopper and Pearson, 1934: 9 of 9 give [0.66, 1]); a difference gets one pseudo-group at either end
of its range.

Legend: N videos, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

MIN_GROUPS = 5
"""Fewest groups that an interval is computed over."""
MIN_DEGREES = 2
"""Fewest degrees of freedom: with 1, the quantile is 12.7 and every interval is the whole range."""


def enough_groups(groups: Sequence[Any] | None) -> bool:
    """Return whether there are groups, known for every video, and at least `MIN_GROUPS` of them."""
    return groups is not None and None not in groups and len(set(groups)) >= MIN_GROUPS


def interval_unit(groups: Sequence[Any] | None) -> str:
    """Say what an interval is computed over, and whether that is too narrow.

    Returns:
        "groups"; "videos" where the data names no groups; or "videos, which is too narrow: too few
        groups (3, at least 5 are needed)".
    """
    if enough_groups(groups):
        return "groups"
    if groups is None or None in groups or not len(groups):
        return "videos"
    return (
        f"videos, which is too narrow: too few groups ({len(set(groups))}, at least {MIN_GROUPS} "
        "are needed)"
    )


def proportion_interval(
    values: Tensor,
    groups: Sequence[Any] | None = None,
    *,
    weights: Tensor | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of the mean of values in [0, 1], for example of an accuracy.

    Wilson's interval (1927) with an effective sample size p (1 - p) / variance, as for surveys
    with clusters: Dean and Pagano, "Evaluating Confidence Interval Methods for Binomial
    Proportions in Clustered Surveys", 2015. We differ in the degrees of freedom, see the head of
    this file. Of right and wrong answers without groups, or with one video in each: Wilson's
    interval itself, so 10 of 10 give [0.72, 1].

    Args:
        values: (N,), bool or float in [0, 1].
        groups: scene or person of each video; used where known for all and at least `MIN_GROUPS`.
        weights: (N,), not negative; None weighs all videos alike.

    Returns:
        Lower and upper end, within [0, 1]; (NaN, NaN) without values.
    """
    if not len(values):
        return math.nan, math.nan
    x = values.double()
    w = torch.ones_like(x) if weights is None else weights.double()
    w = w / w.sum()
    p = float((w * x).sum())
    units = _unit_of(groups, len(x))
    alone = not enough_groups(groups) or int(units.max()) + 1 == len(x)

    if not alone and bool((x == x[0]).all()) and float(x[0]) in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / (int(units.max()) + 1))
        return (bound, 1.0) if x[0] else (0.0, 1 - bound)
    binary = bool(((x == 0) | (x == 1)).all())
    if binary and alone:
        n_effective = 1 / float((w**2).sum())  # Kish; N for equal weights
        z = NormalDist().inv_cdf((1 + level) / 2)
    else:
        sums = _sums(w * (x - p), units)
        variance = float((sums**2).sum()) * len(sums) / max(1, len(sums) - 1)
        n_effective = p * (1 - p) / variance if variance > 1e-18 else float(len(sums))
        z = t_quantile((1 + level) / 2, _degrees(x, units))

    centre = (p + z * z / (2 * n_effective)) / (1 + z * z / n_effective)
    half = z * math.sqrt(p * (1 - p) / n_effective + (z / (2 * n_effective)) ** 2)
    half /= 1 + z * z / n_effective
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def difference_interval(
    values: Tensor, groups: Sequence[Any] | None = None, *, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the mean of values in [-1, 1], for example of paired differences.

    Student's t over groups (or videos). Where all values are equal, one pseudo-group at -1 and one
    at 1 is added for the variance: no difference in n videos gives about +-3 / n, the rule of
    three.

    Args:
        values: (N,), float in [-1, 1].
        groups: as `proportion_interval`.

    Returns:
        Lower and upper end, within [-1, 1]; (NaN, NaN) without values.
    """
    if not len(values):
        return math.nan, math.nan
    half = _half_width(values.double(), groups, level)
    mean = float(values.double().mean())
    return max(-1.0, mean - half), min(1.0, mean + half)


def ratio_interval(
    numerator: Tensor,
    denominator: Tensor,
    groups: Sequence[Any] | None = None,
    *,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of mean(numerator) / mean(denominator) of the same videos.

    Linearised (the delta method): the ratio R varies as the mean of (numerator - R denominator) /
    mean(denominator), whose interval is Student's t as in `difference_interval`.

    Args:
        numerator, denominator: (N,), float in [0, 1], for example corrupted and clean accuracy.
        groups: as `proportion_interval`.

    Returns:
        Lower end, not negative, and upper end; (NaN, NaN) where the denominator's mean is 0.
    """
    mean = float(denominator.double().mean()) if len(denominator) else 0.0
    if mean == 0:
        return math.nan, math.nan
    ratio = float(numerator.double().mean()) / mean
    residual = (numerator.double() - ratio * denominator.double()) / mean
    half = _half_width(residual, groups, level)
    return max(0.0, ratio - half), ratio + half


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution, for probabilities of at least 0.5.

    The distribution function for whole degrees of freedom is that of Abramowitz and Stegun,
    26.7.3 and 26.7.4; it is inverted by bisection.

    Args:
        probability: 0.5 to less than 1.
        degrees: degrees of freedom, at least 1.
    """
    if degrees > 200:  # Abramowitz and Stegun, 26.7.5; exact to five digits here
        z = NormalDist().inv_cdf(probability)
        return z + (z**3 + z) / (4 * degrees)
    low, high = 0.0, 1.0
    while _t_distribution(high, degrees) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if _t_distribution(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_distribution(t: float, degrees: int) -> float:
    """Return the probability of at most t, t not negative."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    term = cosine if degrees % 2 else 1.0
    total = term if degrees > 1 or degrees % 2 == 0 else 0.0
    for number in range(3 if degrees % 2 else 2, degrees - 1, 2):
        term *= cosine**2 * (number - 1) / number
        total += term
    # The probability of [-t, t].
    inside = 2 / math.pi * (theta + sine * total) if degrees % 2 else sine * total
    return (1 + inside) / 2


def _half_width(values: Tensor, groups: Sequence[Any] | None, level: float) -> float:
    """Return half the width of the t interval of the mean of values (N,) float64."""
    units = _unit_of(groups, len(values))
    residual = (values - values.mean()) / len(values)
    sums = _sums(residual, units)
    G = len(sums)
    if float(sums.abs().max()) < 1e-12:
        # All alike: the variance of G equal values with one at either end of [-1, 1] added.
        variance, degrees = 2 / (G + 1) / (G + 2), G + 1
    else:
        variance = float((sums**2).sum()) * G / (G - 1)
        degrees = _degrees(values, units)
    return t_quantile((1 + level) / 2, degrees) * math.sqrt(variance)


def _unit_of(groups: Sequence[Any] | None, count: int) -> Tensor:
    """Return the number of the group of each video, (N,); without enough groups, its own number."""
    if groups is None or not enough_groups(groups):
        return torch.arange(count)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return torch.tensor([numbers[name] for name in groups])


def _sums(values: Tensor, units: Tensor) -> Tensor:
    """Return the sum of the values of each group, (G,)."""
    return torch.zeros(int(units.max()) + 1, dtype=torch.double).index_add_(0, units, values)


def _degrees(values: Tensor, units: Tensor) -> int:
    """Return the degrees of freedom: groups that hold anything but the commonest value.

    At least `MIN_DEGREES` and at most G - 1.
    """
    found, counts = values.unique(return_counts=True)
    other = values != found[counts.argmax()]
    informed = int((_sums(other.double(), units) > 0).sum())
    return max(1, min(int(units.max()), max(MIN_DEGREES, informed)))
