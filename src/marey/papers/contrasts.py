"""Lines of a table compared on the same clips: each line's interval, and its test against another.

Which line is tested against which is part of the table (`against`), decided before they ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marey.metrics.comparison import sign_flip_p_value
from marey.metrics.intervals import (
    difference_interval,
    enough_groups,
    interval_unit,
    proportion_interval,
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """The answers of one line of a table."""

    name: str
    table: str
    against: str
    """Name of the line it is tested against; "" for none."""
    answers: Sequence[Sequence[int]]
    """Class of every clip, by seed."""
    labels: Sequence[int]
    groups: Sequence[str]
    """Scene or person of every clip."""

    def right(self, seeds: int | None = None) -> Tensor:
        """Return the share of seeds that are right about each clip, float64 (N,)."""
        answers = torch.tensor(self.answers[:seeds])
        return (answers == torch.tensor(self.labels)).double().mean(0)


def describe_lines(lines: Sequence[Line]) -> dict[str, Any]:
    """Return every line's accuracy with its interval, and its paired difference from the line it is
    tested against.

    A clip counts by the share of the seeds that are right about it, over the seeds both lines have.
    Intervals are over groups of clips. The p-value swaps the two lines at random in whole groups
    (`comparison.sign_flip_p_value`); "holm" is corrected for all tests of the study (Holm, 1979).
    """
    by_name = {line.name: line for line in lines}
    rows = []
    for line in lines:
        right = line.right()
        low, high = proportion_interval(right, line.groups)
        row: dict[str, Any] = {
            "line": line.name,
            "table": line.table,
            "clips": len(right),
            "seeds": len(line.answers),
            "top1": points(float(right.mean())),
            "low": points(low),
            "high": points(high),
            "interval": "95%, over " + interval_unit(line.groups),
        }
        other = by_name.get(line.against)
        if other is not None and list(other.labels) == list(line.labels):
            row["against"] = difference(line, other)
        rows.append(row)
    correct_for_all([row["against"] for row in rows if "against" in row])
    return {"lines": rows}


def difference(line: Line, other: Line) -> dict[str, Any]:
    """Return the paired difference of a line from another in points, with interval and p-value."""
    seeds = min(len(line.answers), len(other.answers))
    gains = line.right(seeds) - other.right(seeds)
    low, high = difference_interval(gains, line.groups)
    units = line.groups if enough_groups(line.groups) else range(len(gains))
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    placed = torch.tensor([numbers[unit] for unit in units])
    sums = torch.zeros(len(numbers), dtype=torch.double).index_add_(0, placed, gains)
    return {
        "line": other.name,
        "seeds": seeds,
        "difference": points(float(gains.mean())),
        "low": points(low),
        "high": points(high),
        "p": round(sign_flip_p_value(sums), 5),
    }


def correct_for_all(tests: Sequence[dict[str, Any]]) -> None:
    """Add "holm", the p-value corrected for the number of tests, to each."""
    largest = 0.0
    for rank, test in enumerate(sorted(tests, key=lambda test: test["p"])):
        largest = max(largest, min(1.0, test["p"] * (len(tests) - rank)))
        test["holm"] = round(largest, 5)


def points(share: float) -> float:
    """Return a share in percent, to one decimal."""
    return round(100 * share, 1)
