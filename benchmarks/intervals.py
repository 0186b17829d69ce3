"""Coverage of 95% intervals of an accuracy by simulation: few groups whose videos are alike.

    python -m benchmarks.intervals --out results/intervals.json [--repeats 4000]

Every draw has G groups of videos; the accuracy of a group is beta-distributed around the true
accuracy with intraclass correlation 0.2 (beta-binomial). Coverage is the share of draws whose
interval holds the true accuracy. The interval of `marey.metrics.intervals` stands beside the
percentile bootstrap over groups (what Marey printed before), the percentile-t and the wild
bootstrap-t over groups, and Student's t over groups.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.files import write_json
from marey.metrics.intervals import proportion_interval, t_quantile

ACCURACIES = (0.7, 0.95)
GROUPS = (5, 10, 30)
INTRACLASS = 0.2
RESAMPLES = 400
"""Draws of each bootstrap."""


def draw_groups(
    accuracy: float, num_groups: int, size: int, generator: torch.Generator
) -> tuple[Tensor, list[int]]:
    """Draw right and wrong answers (N,) and the group of each, N = num_groups * size.

    A Dirichlet draw of two values is a beta draw; torch takes its randomness from the generator
    through gamma variates.
    """
    spread = (1 - INTRACLASS) / INTRACLASS
    shape = torch.tensor([accuracy * spread, (1 - accuracy) * spread], dtype=torch.double)
    gamma = torch._standard_gamma(shape.expand(num_groups, 2), generator=generator)
    rates = gamma[:, 0] / gamma.sum(1)
    right = torch.rand(num_groups, size, generator=generator, dtype=torch.double) < rates[:, None]
    return right.flatten().double(), [group for group in range(num_groups) for _ in range(size)]


def other_intervals(means: Tensor, generator: torch.Generator) -> dict[str, tuple[float, float]]:
    """Return the intervals Marey's is compared with, from the accuracy of groups of one size (G,).

    A bootstrap draw without variance has no t value; it counts as 0.
    """
    G, mean = len(means), float(means.mean())
    error = float(means.std()) / math.sqrt(G)
    tails = torch.tensor([0.025, 0.975], dtype=torch.double)
    drawn = means[torch.randint(G, (RESAMPLES, G), generator=generator)]
    percentile = torch.quantile(drawn.mean(1), tails).tolist()

    def t_values(rows: Tensor, centre: float) -> Tensor:
        return ((rows.mean(1) - centre) / (rows.std(1) / math.sqrt(G))).nan_to_num(0, 0, 0)

    studentised = torch.quantile(t_values(drawn, mean), tails).tolist()
    signs = 1.0 - 2.0 * torch.randint(2, (RESAMPLES, G), generator=generator)
    wild = mean + signs * (means - mean)  # Rademacher weights
    size = float(torch.quantile(t_values(wild, mean).abs(), 0.95))
    half = t_quantile(0.975, G - 1) * error
    return {
        "percentile bootstrap": (percentile[0], percentile[1]),
        "percentile-t bootstrap": (mean - studentised[1] * error, mean - studentised[0] * error),
        "wild bootstrap-t": (mean - size * error, mean + size * error),
        "Student's t": (mean - half, mean + half),
    }


def coverage(
    accuracy: float, num_groups: int, size: int, repeats: int, *, others: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Return coverage and mean width of each interval, and the share of draws without variance."""
    generator = torch.Generator().manual_seed(seed)
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    flat = 0
    for _ in range(repeats):
        right, groups = draw_groups(accuracy, num_groups, size, generator)
        means = right.view(num_groups, size).mean(1)
        flat += bool((means == means[0]).all())
        found = {"marey": proportion_interval(right, groups)}
        if others:
            found |= other_intervals(means, generator)
        for name, (low, high) in found.items():
            held.setdefault(name, []).append(low <= accuracy <= high)
            widths.setdefault(name, []).append(min(1.0, high) - max(0.0, low))
    return {
        "accuracy": accuracy,
        "groups": num_groups,
        "videos_per_group": size,
        "draws_without_variance": flat / repeats,
        "coverage": {name: sum(rows) / repeats for name, rows in held.items()},
        "mean_width": {name: sum(rows) / repeats for name, rows in widths.items()},
    }


def main() -> None:
    """Simulate every setting and write the table."""
    parser = argparse.ArgumentParser(description="Coverage of the 95% intervals.")
    parser.add_argument("--out", type=Path, default=Path("results/intervals.json"))
    parser.add_argument("--repeats", type=int, default=4000)
    arguments = parser.parse_args()
    rows = [
        coverage(accuracy, num_groups, size, arguments.repeats)
        for accuracy in ACCURACIES
        for num_groups in GROUPS
        for size in (8, 20, 50)
    ]
    for row in rows:
        print(row["accuracy"], row["groups"], row["videos_per_group"], row["coverage"])
    write_json(
        arguments.out,
        {
            "command": f"python -m benchmarks.intervals --out {arguments.out} "
            f"--repeats {arguments.repeats}",
            "what": "share of simulated draws whose 95% interval holds the true accuracy",
            "intraclass_correlation": INTRACLASS,
            "repeats": arguments.repeats,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
