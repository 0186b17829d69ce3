"""From a training run to the bundled arrow of time: fit its temperature and limit, store it.

    python -m benchmarks.arrow_of_time RUN --windows WINDOWS --store weights/marey-arrow \
        --out results/marey_arrow.json

The temperature minimises the cross-entropy, and the limit of "cannot tell" is the lowest
probability from which `GOAL` of the told windows are right, both on windows of validation
recordings of motion capture that training does not show; all is measured on those of test
recordings. No video takes part.
"""

from __future__ import annotations

import argparse
import datetime
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
from marey.training.tasks.arrow_of_time import packed_windows

GOAL = 0.9
"""Share of the told directions that are to be right."""


def odds_of(checkpoint: Checkpoint, index: DatasetIndex, split: str) -> tuple[Tensor, list[str]]:
    """Return the log odds of "forwards" of held-out windows (N,), and the recording of each."""
    known = {sample.group for sample in index.samples if sample.split == "train"}
    _, clips, _ = packed_windows(index, split)
    groups = [
        str(sample.group)
        for sample in index.samples
        if sample.split == split and sample.group not in known
    ]
    return torch.cat([log_odds(checkpoint, part) for part in clips.split(256)]), groups


def fit_temperature(odds: Tensor) -> float:
    """Return the temperature, out of 1 to 10 in steps of .1, with the least cross-entropy."""
    candidates = torch.arange(10, 101) / 10
    losses = torch.stack([F.softplus(-odds / t).mean() for t in candidates])
    return float(candidates[int(losses.argmin())])


def lowest_limit(odds: Tensor, temperature: float, goal: float = GOAL) -> float:
    """Return the lowest of .5, .51, ..., .99 from which so many of the told windows are right;
    .99 where none is."""
    forwards = torch.sigmoid(odds / temperature)
    sure = torch.maximum(forwards, 1 - forwards)
    for limit in (torch.arange(50, 100) / 100).tolist():
        told = sure >= limit
        if bool(told.any()) and float((odds[told] > 0).float().mean()) >= goal:
            return limit
    return 0.99


def measure(odds: Tensor, groups: list[str], temperature: float, limit: float) -> dict[str, Any]:
    """Return how often the direction is right, told, and right where told, with intervals over
    recordings."""
    right = odds > 0
    sure = torch.sigmoid(odds.abs() / temperature)
    told = sure >= limit
    names = [group for group, kept in zip(groups, told.tolist(), strict=True) if kept]

    def share(values: Tensor, of: list[str]) -> dict[str, Any]:
        low, high = proportion_interval(values, of)
        mean = float(values.double().mean())
        return {"mean": round(mean, 4), "interval": [round(low, 4), round(high, 4)]}

    per_group = {
        group: round(float(right[[name == group for name in groups]].float().mean()), 4)
        for group in sorted(set(groups))
    }
    return {
        "windows": len(odds),
        "recordings": len(per_group),
        "direction_right": share(right, groups),
        "told": share(told, groups),
        "right_where_told": share(right[told], names),
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
    temperature = fit_temperature(val)
    limit = lowest_limit(val, temperature)
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
