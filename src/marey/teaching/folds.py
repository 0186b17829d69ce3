"""Folds for cross-validation that never cut a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_FOLDS = 10


def folds_of(labels: Sequence[str], groups: Sequence[str], num_folds: int, seed: int = 0) -> Tensor:
    """Give every group to one fold, so that classes are spread evenly; int64 (N,).

    Groups are dealt out in random order, the largest first, each to the fold that has the fewest
    videos of its classes, then the fewest videos.

    Args:
        labels: of N videos.
        groups: of N videos, such as scenes or persons.
        num_folds: at most; there are never more folds than groups.
    """
    order = torch.randperm(len(set(groups)), generator=torch.Generator().manual_seed(seed))
    names = sorted(set(groups))
    shuffled = [names[number] for number in order.tolist()]
    members = {name: Counter[str]() for name in names}
    for label, group in zip(labels, groups, strict=True):
        members[group][label] += 1

    num_folds = min(num_folds, len(names))
    sizes = [Counter[str]() for _ in range(num_folds)]
    fold_of = {}
    for name in sorted(shuffled, key=lambda group: -members[group].total()):
        counts = members[name]
        best = min(
            range(num_folds),
            key=lambda fold: (
                sum(count * sizes[fold][label] for label, count in counts.items()),
                sizes[fold].total(),
            ),
        )
        sizes[best] += counts
        fold_of[name] = best
    return torch.tensor([fold_of[group] for group in groups])
