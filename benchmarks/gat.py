"""GAT with fused attention against the same model with eager attention maps: time and peak memory.

    python -m benchmarks.gat [--batch 64] [--frames 300] [--rounds 3] [--out results/gat_speed.json]

Both run the paper's sizes (1,024 + 128 values, 8 heads, global and 20 s experts). "fused" asks for
no map, so PyTorch's fused attention runs; "eager" asks for the maps, which are then thrown away.
Each training step is forward, backward and Adam, in a process of its own; memory is the peak of
that process less what it had before the step. The "reading" in the file is written by hand.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import machine
from benchmarks.written_result import write_result
from marey.losses.multilabel import multilabel_loss
from marey.models.gat import GAT

CLASSES = 431
NAMES = ("train fused", "train eager", "infer fused", "infer eager")


def contestants(batch: int, frames: int) -> dict[str, Callable[[], Any]]:
    """Name -> function that does one training step or one inference pass."""
    torch.manual_seed(0)
    features = {"rgb": torch.randn(batch, frames, 1024), "audio": torch.randn(batch, frames, 128)}
    lengths = torch.randint(frames // 2, frames + 1, (batch, 1))
    mask, targets = (
        torch.arange(frames)[None] < lengths,
        (torch.rand(batch, CLASSES) < 0.01).float(),
    )
    model = GAT(num_classes=CLASSES, max_frames=max(frames, 300))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)

    def step(maps: bool) -> None:
        model.train()
        multilabel_loss(model(features, mask, return_attention=maps)["logits"], targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    def infer(maps: bool) -> None:
        model.eval()
        with torch.inference_mode():
            model(features, mask, return_attention=maps)

    return {
        "train fused": lambda: step(False),
        "train eager": lambda: step(True),
        "infer fused": lambda: infer(False),
        "infer eager": lambda: infer(True),
    }


def measure_once(name: str, batch: int, frames: int) -> dict[str, float]:
    """Run one contestant once, after a small warm-up, and return its wall time, processor time and
    added memory."""
    contestants(1, 20)[name]()
    run = contestants(batch, frames)[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu_start = time.perf_counter(), time.process_time()
    run()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def in_own_process(name: str, batch: int, frames: int) -> dict[str, float]:
    """Return `measure_once` of a fresh process, so that peaks of memory do not hide each other."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gat",
        "--only",
        name,
        "--batch",
        str(batch),
        "--frames",
        str(frames),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="measure one contestant once and print it")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure_once(options.only, options.batch, options.frames)))
        return
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for _ in range(options.rounds):
        for name in NAMES:
            runs[name].append(in_own_process(name, options.batch, options.frames))
            print(name, runs[name][-1], file=sys.stderr, flush=True)
    median = {
        name: {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
        for name, found in runs.items()
    }
    ratios = {
        f"{kind} {key}": round(median[f"{kind} eager"][key] / median[f"{kind} fused"][key], 2)
        for kind in ("train", "infer")
        for key in ("seconds", "cpu_seconds", "megabytes")
    }
    result = {
        "command": f"python -m benchmarks.gat --batch {options.batch} --frames {options.frames} "
        f"--rounds {options.rounds}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "median": median,
        "runs": runs,
        "eager_over_fused": ratios,
        "machine": machine("torch"),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        write_result(options.out, result)


if __name__ == "__main__":
    main()
