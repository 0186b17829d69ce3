"""From a training run to the bundled arrow of time: fit its temperature and limit, store it.

    python -m benchmarks.arrow_of_time RUN --windows WINDOWS --store weights/marey-arrow \
        --out results/marey_arrow.json

The temperature minimises the cross-entropy, and the limit of "cannot tell" is the lowest
probability from which `GOAL` of the told windows are right, both on windows of validation
recordings of motion capture that training does not show; all is measured on those of test
recordings. Recordings count alike, however many windows were drawn of each. No video takes part.
"""

from __future__ import annotations

import argparse
import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.interleave import machine
from marey.checkpoints.folder import Checkpoint, save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.index import DatasetIndex
from marey.datasets.open import open_dataset
from marey.files import write_json
from marey.inference.direction import log_odds
from marey.metrics.intervals import proportion_interval
from marey.training.tasks.arrow_of_time import first_person, held_out

GOAL = 0.9
"""Share of the told directions that are to be right."""


def odds_of(checkpoint: Checkpoint, index: DatasetIndex, split: str) -> tuple[Tensor, list[str]]:
    """Return the log odds of "forwards" of held-out windows (N,), and the recording of each."""
    places = held_out(index, split)
    clips = first_person(index, places)
    odds = torch.cat([log_odds(checkpoint, part) for part in clips.split(256)])
    return odds, [str(index.samples[place].group) for place in places]


def share_of(groups: list[str]) -> Tensor:
    """Return a weight for every window, with which all recordings count alike, float64 (N,)."""
    counts = Counter(groups)
    return torch.tensor([1 / counts[group] for group in groups]).double() / len(counts)


def fit_temperature(odds: Tensor, groups: list[str]) -> float:
    """Return the temperature, out of 1 to 10 in steps of .1, with the least cross-entropy."""
    weights = share_of(groups)
    candidates = [round(0.1 * step, 1) for step in range(10, 101)]
    losses = [float((weights * F.softplus(-odds.double() / t)).sum()) for t in candidates]
    return candidates[losses.index(min(losses))]


def lowest_limit(odds: Tensor, groups: list[str], temperature: float, goal: float = GOAL) -> float:
    """Return the lowest of .5, .51, ..., .99 from which so many of the told windows are right;
    .99 where none is."""
    weights = share_of(groups)
    sure = torch.sigmoid(odds.abs() / temperature)
    for step in range(50, 100):
        told = sure >= step / 100
        if bool(told.any()):
            right = float(weights[told & (odds > 0)].sum() / weights[told].sum())
            if right >= goal:
                return step / 100
    return 0.99


def measure(odds: Tensor, groups: list[str], temperature: float, limit: float) -> dict[str, Any]:
    """Return how often the direction is right, told, and right where told, with intervals over
    recordings."""
    right = odds > 0
    told = torch.sigmoid(odds.abs() / temperature) >= limit
    everything = torch.ones_like(told)

    def share(values: Tensor, among: Tensor) -> dict[str, Any]:
        of = [group for group, kept in zip(groups, among.tolist(), strict=True) if kept]
        weights = share_of(groups)[among]
        low, high = proportion_interval(values[among], of, weights=weights)
        mean = float((weights * values[among].double()).sum() / weights.sum())
        return {
            "mean": round(mean, 4),
            "interval": [round(low, 4), round(high, 4)],
            "windows_alike": round(float(values[among].double().mean()), 4),
        }

    per_group = {
        group: round(float(right[[name == group for name in groups]].float().mean()), 4)
        for group in sorted(set(groups))
    }
    return {
        "windows": len(odds),
        "recordings": len(per_group),
        "direction_right": share(right, everything),
        "told": share(told, everything),
        "right_where_told": share(right, told),
        "per_recording": per_group,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)

    checkpoint, index = load_checkpoint(f"{given.run}/last"), open_dataset(given.windows)
    val, val_groups = odds_of(checkpoint, index, "val")
    test, test_groups = odds_of(checkpoint, index, "test")
    temperature = fit_temperature(val, val_groups)
    limit = lowest_limit(val, val_groups, temperature)
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": "python -m benchmarks.arrow_of_time RUN --windows WINDOWS",
        "trained": "marey train arrow_of_time --data WINDOWS (84,000 windows of marey-mini)",
        "parameters": sum(values.numel() for values in checkpoint.model.parameters()),
        "temperature": temperature,
        "told_from": limit,
        "validation": measure(val, val_groups, temperature, limit),
        "test": measure(test, test_groups, temperature, limit),
    }
    print(found)
    if given.store is not None:
        save_checkpoint(
            given.store,
            checkpoint.model,
            class_names=checkpoint.class_names,
            preprocess=checkpoint.pose_sampling,
            calibration={"calibrated": False, "temperature": temperature},
            extra={"told_from": limit, "trained_on": "motion capture and compositions, no video"},
        )
    if given.out is not None:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
