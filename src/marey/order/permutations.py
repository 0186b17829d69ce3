"""Permutation sets: the order head classifies which row of the set permuted a clip.

A permutation `o` is a gather: `permuted = frames[o]`, so `o[t]` is the original index of the frame
at position t. T is the number of frames, P the number of permutations of a set.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marey.errors import UserError, unknown_name

RULES = ("closest", "farthest", "random")
SEARCH_ALL_UP_TO = 9
"""Largest T whose T! permutations are all candidates (9! = 362,880)."""
POOL_SIZE = 100_000
"""Number of random candidates for longer clips."""


def all_permutations(num_frames: int) -> Tensor:
    """Return all T! permutations in lexicographic order, int64 (T!, T).

    Raises:
        UserError: if T exceeds 10 (10! = 3,628,800 rows).
    """
    if not 1 <= num_frames <= 10:
        raise UserError(
            f"cannot list all permutations of {num_frames} frames; expected 1 to 10 frames"
        )
    rows = np.zeros((1, 1), dtype=np.uint8)
    # Rows of `size` frames: each first element, then the rows of one frame less with that element
    # skipped.
    for size in range(2, num_frames + 1):
        first = np.repeat(np.arange(size, dtype=np.uint8), len(rows))[:, None]
        rest = np.tile(rows, (size, 1))
        rows = np.concatenate([first, rest + (rest >= first)], axis=1)
    return torch.from_numpy(rows.astype(np.int64))


def random_permutations(count: int, num_frames: int, generator: torch.Generator) -> Tensor:
    """Draw permutations uniformly from all T!, with replacement, int64 (count, T).

    This is how evaluation draws (the paper: "we randomly select a permutation"), never from a
    training set.
    """
    return torch.rand(count, num_frames, generator=generator, dtype=torch.float64).argsort(dim=1)


def make_permutation_set(
    count: int, num_frames: int, *, rule: str = "closest", seed: int = 0
) -> Tensor:
    r"""Choose `count` permutations of T frames, distinct and without the identity.

    Truong et al., "DirecFormer", CVPR 2022, section 4.1: 1,000 of 8! "so that the Hamming distance
    between permutations is as minimum as possible", by the greedy rule of JiGen: start anywhere,
    then add the candidate whose mean Hamming distance to the chosen rows is smallest. The file the
    authors published is the opposite, a farthest (largest mean) set. Ties go to the first candidate
    in lexicographic order (in drawn order beyond T=9).

    Args:
        count: P, rows to choose.
        num_frames: T. Up to 9 every permutation is a candidate, beyond that a drawn pool of
            100,000.
        rule: "closest" (the paper), "farthest" (the published file), or "random".
        seed: seeds the first row, the pool, and the random rule.

    Returns:
        (P, T) int64.

    Raises:
        UserError: if the rule is unknown, or there are fewer than `count` permutations to choose
            from.
    """
    if rule not in RULES:
        raise unknown_name("permutation rule", rule, RULES)
    if num_frames < 2:
        raise UserError(
            f"a clip of {num_frames} frame has no order to learn; use at least 2 frames"
        )
    if not 1 <= count <= math.factorial(num_frames) - 1:
        raise UserError(
            f"{count} permutations asked for, but {num_frames} frames have "
            f"{math.factorial(num_frames) - 1} besides the identity; "
            f"ask for 1 to {math.factorial(num_frames) - 1} or use more frames"
        )
    generator = torch.Generator().manual_seed(seed)
    if num_frames <= SEARCH_ALL_UP_TO:
        candidates = all_permutations(num_frames)[1:]
    else:
        candidates = _draw_pool(num_frames, generator)
        if count > len(candidates):
            raise UserError(
                f"{count} permutations asked for, but sets of {num_frames} frames are chosen from "
                f"{len(candidates)} candidates; ask for fewer"
            )
    if rule == "random":
        return candidates[torch.randperm(len(candidates), generator=generator)[:count]]
    return _greedy(candidates, count, farthest=rule == "farthest", generator=generator)


def _draw_pool(num_frames: int, generator: torch.Generator) -> Tensor:
    """Draw the pool of distinct candidates for T beyond 9, in drawn order, without the identity."""
    drawn = random_permutations(POOL_SIZE + POOL_SIZE // 8, num_frames, generator).numpy()
    _, first = np.unique(drawn, axis=0, return_index=True)
    rows = torch.from_numpy(drawn[np.sort(first)])
    return rows[(rows != torch.arange(num_frames)).any(dim=1)][:POOL_SIZE]


def _greedy(
    candidates: Tensor, count: int, *, farthest: bool, generator: torch.Generator
) -> Tensor:
    """Add one row at a time by its summed number of agreements with the rows already chosen."""
    columns = candidates.T.to(
        torch.uint8
    ).contiguous()  # (T, N): one frame position after the other
    agreements = torch.zeros(
        len(candidates), dtype=torch.int32
    )  # mean Hamming = T - agreements / chosen
    out_of_reach = 10**9 if farthest else -(10**9)
    chosen: list[int] = []
    pick = int(torch.randint(len(candidates), (1,), generator=generator))
    while True:
        chosen.append(pick)
        if len(chosen) == count:
            return candidates[chosen]
        agreements += (columns == columns[:, pick, None]).sum(dim=0, dtype=torch.int32)
        agreements[pick] = out_of_reach
        pick = int(agreements.argmin() if farthest else agreements.argmax())


def check_permutations(
    permutations: Tensor, num_frames: int | None = None, *, source: str = "the set"
) -> Tensor:
    """Return the set as int64 (P, T) after checking every row.

    Raises:
        UserError: if a row is no permutation of 0..T-1, two rows are equal, or T is not
            `num_frames`.
    """
    if (
        permutations.ndim != 2
        or permutations.dtype.is_floating_point
        or permutations.dtype == torch.bool
    ):
        raise UserError(
            f"{source}: expected whole numbers of shape (P, T), got {permutations.dtype} of shape "
            f"{tuple(permutations.shape)}"
        )
    rows = permutations.to(torch.int64)
    T = rows.shape[1]
    if num_frames is not None and num_frames != T:
        raise UserError(
            f"{source}: its permutations have {T} frames, but the model takes clips of "
            f"{num_frames}; make a set for {num_frames} frames or use clips of {T}"
        )
    bad = (rows.sort(dim=1).values != torch.arange(T, device=rows.device)).any(dim=1).nonzero()
    if len(bad):
        index = int(bad[0])
        raise UserError(
            f"{source}: row {index} is {rows[index].tolist()}, expected each of 0..{T - 1} once"
        )
    _, inverse, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    if int(counts.max()) > 1:
        first, second = (inverse == counts.argmax()).nonzero()[:2, 0].tolist()
        raise UserError(
            f"{source}: rows {first} and {second} are both {rows[first].tolist()}; "
            "every order class needs its own permutation, remove one"
        )
    return rows


def load_permutations(
    path: str | Path, num_frames: int | None = None, *, identity_first: bool = False
) -> Tensor:
    """Read a set of the released layout: a `.npy` of shape (P, T) with values 0..T-1 or 1..T.

    Args:
        path: the file; nothing in it is unpickled.
        num_frames: T the set must have, None for any.
        identity_first: put the identity before the rows, as the released code numbers its P+1 order
            classes (class 0 is the ordered clip, class k is row k-1).

    Raises:
        UserError: if the file is no such set.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path}: not a .npy file of whole numbers ({error}); expected shape (P, T)"
        ) from error
    if values.ndim != 2 or values.dtype.kind not in "iu" or values.size == 0:
        raise UserError(
            f"{path}: expected whole numbers of shape (P, T), got {values.dtype} of shape "
            f"{values.shape}"
        )
    rows = torch.from_numpy(np.ascontiguousarray(values.astype(np.int64)))
    rows = check_permutations(rows - int(rows.min() == 1), num_frames, source=str(path))
    if not identity_first:
        return rows
    identity = torch.arange(rows.shape[1])[None]
    return check_permutations(torch.cat([identity, rows]), source=f"{path} with the identity first")
