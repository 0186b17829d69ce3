"""Compare two models on the same videos: McNemar's exact test, paired interval, gains per
class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from marey.metrics.intervals import difference_interval, enough_groups, interval_unit


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p-value of McNemar's test.

    McNemar, 1947: of the videos that exactly one model gets right, under no difference each falls
    to either model with
    chance 1/2, so the smaller count follows a binomial(n, 1/2).

    Args:
        only_a, only_b: videos right only in A, only in B.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def paired_difference(
    correct_a: Tensor, correct_b: Tensor, *, groups: Sequence[Any] | None = None
) -> dict[str, float]:
    """Return the accuracy difference B - A of the same videos with its 95% interval.

    Args:
        correct_a, correct_b: bool, (N,), the same videos in the same order.
        groups: as `difference_interval`.

    Returns:
        "difference", "low", "high".
    """
    gains = correct_b.double() - correct_a.double()
    low, high = difference_interval(gains, groups)
    return {"difference": gains.mean().item(), "low": low, "high": high}


def sign_flip_p_value(gains_per_group: Tensor, *, repeats: int = 20000, seed: int = 0) -> float:
    """Return the two-sided p-value of no difference, by swapping the models at random in whole
    groups.

    For videos that come in groups (scenes, people), where McNemar's independent videos claim too
    much. Exact over all sign patterns up to 14 groups, else drawn at random (with the observed
    pattern counted, so never 0).

    Args:
        gains_per_group: (G,), the sum over a group's videos of correct_b - correct_a.
    """
    gains = gains_per_group.double()
    observed = gains.sum().abs() - 1e-9
    G = len(gains)
    if G <= 14:
        patterns = torch.tensor(
            [[1 - 2 * (number >> bit & 1) for bit in range(G)] for number in range(2**G)]
        )
        return ((patterns.double() @ gains).abs() >= observed).double().mean().item()
    signs = (
        1
        - 2 * torch.randint(2, (repeats, G), generator=torch.Generator().manual_seed(seed)).double()
    )
    return (1 + int(((signs @ gains).abs() >= observed).sum())) / (repeats + 1)


def compare(
    correct_a: Tensor,
    correct_b: Tensor,
    labels: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two models on the same videos.

    Args:
        correct_a, correct_b: bool, (N,).
        labels: class name of each video.
        groups: scene or person of each video; used where known for all, and at least five.

    Returns:
        JSON types: accuracies, difference with interval, McNemar's counts and p-value, the group
        test's p-value (None without groups), and gains per class, largest first.
    """
    unit = interval_unit(groups)
    groups = groups if enough_groups(groups) else None
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    gains = correct_b.double() - correct_a.double()
    by_class = {
        name: torch.tensor([label == name for label in labels]) for name in dict.fromkeys(labels)
    }
    per_class = [
        {
            "class": name,
            "videos": int(chosen.sum()),
            "a": correct_a[chosen].double().mean().item(),
            "b": correct_b[chosen].double().mean().item(),
            "gain": gains[chosen].mean().item(),
        }
        for name, chosen in by_class.items()
    ]
    names = list(dict.fromkeys(groups)) if groups is not None else []
    per_group = torch.tensor(
        [
            sum(
                float(gain)
                for gain, group in zip(gains, groups or [], strict=False)
                if group == name
            )
            for name in names
        ]
    )
    return {
        "num_videos": len(labels),
        "top1_a": correct_a.double().mean().item(),
        "top1_b": correct_b.double().mean().item(),
        **paired_difference(correct_a, correct_b, groups=groups),
        "interval": "95% of the paired difference, over " + unit,
        "only_a": only_a,
        "only_b": only_b,
        "mcnemar_p": mcnemar_exact(only_a, only_b),
        "group_test_p": sign_flip_p_value(per_group, seed=seed) if groups is not None else None,
        "per_class": sorted(per_class, key=lambda row: -float(row["gain"])),
    }
