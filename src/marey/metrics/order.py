"""OrderAcc, how much of a clip's order was recovered, and its chance level.

`order` is the gather that permuted the clip (`order[t]`: original index of the frame at position
t); `path` lists positions in recovered chronological order, so a perfect path is `argsort(order)`
and `order[path]` is 0, 1, ..., T-1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from marey.errors import UserError
from marey.metrics.intervals import proportion_interval

EXACT_CHANCE_UP_TO = 32
"""Largest T whose chance level is summed exactly (8,349 partitions); beyond, 20,000 seeded draws
estimate it."""


def longest_increasing_run(sequences: Tensor) -> Tensor:
    """Return the length of the longest strictly increasing subsequence of every row, int64 (B,), of
    (B, T)."""
    B, T = sequences.shape
    # length[t]: the longest increasing subsequence that ends with element t.
    length = torch.ones(B, T, dtype=torch.int64, device=sequences.device)
    for t in range(1, T):
        extends = sequences[:, :t] < sequences[:, t, None]
        length[:, t] = 1 + (length[:, :t] * extends).max(dim=1).values
    return length.max(dim=1).values


def order_accuracy(path: Tensor, order: Tensor) -> Tensor:
    r"""Return the share of frames that are in the right order relative to each other.

    Truong et al., "DirecFormer", CVPR 2022, Eq. 15: OrderAcc = LCS(o_hat, o) / T, here in [0, 1].
    The paper does not say what o_hat is compared with. A path lists positions, so its truth is
    argsort(o): LCS(path, argsort(o)) is the longest increasing run of o[path]. Compared with o
    itself, a perfect path would score 52.2% at T=8.

    Args:
        path: int64, (B, T), recovered.
        order: int64, (B, T), the permutation that was applied.

    Returns:
        float64, (B,), from 1/T to 1; by chance `chance_order_accuracy(T)`.

    Raises:
        UserError: if the shapes differ or a row is no permutation.
    """
    if path.shape != order.shape or path.ndim != 2:
        raise UserError(
            f"expected path and order of one shape (B, T), got {tuple(path.shape)} and "
            f"{tuple(order.shape)}; recover the order of the same clips"
        )
    T = path.shape[1]
    for name, rows in (("path", path), ("order", order)):
        if bool((rows.sort(dim=1).values != torch.arange(T, device=rows.device)).any()):
            raise UserError(
                f"a row of {name} is no permutation of 0..{T - 1}; every frame must appear once"
            )
    return longest_increasing_run(order.gather(1, path)).double() / T


def order_measures(path: Tensor, order: Tensor) -> dict[str, Tensor]:
    """Split the order accuracy into what neighbours and what the direction contribute.

    Args:
        path, order: as `order_accuracy`.

    Returns:
        float64 (B,) each: "order_accuracy"; "up_to_direction", the better of the path and its
        reversal; "direction_right", 1 where the path is better than its reversal, .5 where they are
        alike.
    """
    forwards, backwards = order_accuracy(path, order), order_accuracy(path.flip(1), order)
    right = (forwards > backwards).double() + (forwards == backwards).double() / 2
    return {
        "order_accuracy": forwards,
        "up_to_direction": torch.maximum(forwards, backwards),
        "direction_right": right,
    }


@functools.lru_cache(maxsize=64)
def chance_up_to_direction(num_frames: int) -> float:
    """Return the mean of the better of a random path and its reversal: .548 for 8 frames, estimated
    from 20,000 seeded draws."""
    draws = torch.rand(20_000, num_frames, generator=torch.Generator().manual_seed(0)).argsort(1)
    runs = torch.maximum(longest_increasing_run(draws), longest_increasing_run(draws.flip(1)))
    return float(runs.double().mean()) / num_frames


@functools.lru_cache(maxsize=64)
def chance_order_accuracy(num_frames: int) -> float:
    """Return the mean OrderAcc of a random path: 0.47129 for 8 frames.

    Exact up to 32 frames: by the Robinson-Schensted correspondence the mean longest increasing run
    is the sum over partitions of T of (largest part) * (number of standard tableaux)^2 / T!.
    """
    T = num_frames
    if T > EXACT_CHANCE_UP_TO:
        draws = torch.rand(20_000, T, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
        return float(longest_increasing_run(draws).double().mean()) / T
    total = sum(parts[0] * standard_tableaux(parts) ** 2 for parts in partitions(T))
    return total / math.factorial(T) / T


def partitions(number: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Yield the partitions of a number into parts, largest first."""
    if number == 0:
        yield ()
        return
    for part in range(min(number, largest or number), 0, -1):
        for rest in partitions(number - part, part):
            yield (part, *rest)


def standard_tableaux(parts: Sequence[int]) -> int:
    """Return the number of standard Young tableaux of a shape, by the hook length formula."""
    columns = [sum(part > column for part in parts) for column in range(parts[0])]
    hooks = [
        part - column + columns[column] - row - 1
        for row, part in enumerate(parts)
        for column in range(part)
    ]
    return math.factorial(sum(parts)) // math.prod(hooks)


def mean_with_interval(values: Tensor) -> tuple[float, tuple[float, float]]:
    """Return the mean of values in [0, 1] and its 95% interval over clips, `proportion_interval`.

    Args:
        values: (clips,) or (clips, shuffles); the shuffles of a clip are averaged first, for they
            are not independent.
    """
    per_clip = values.double().reshape(len(values), -1).mean(dim=1)
    return float(per_clip.mean()), proportion_interval(per_clip)
