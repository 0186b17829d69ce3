"""GAT with fused attention against the same model with eager attention maps: time and peak memory.

    python -m benchmarks.gat [--batch 64] [--frames 300] [--rounds 3] [--out results/gat_speed.json]

Both run the paper's sizes (1,024 + 128 values, 8 heads, global and 20 s experts). "fused" asks for no map, so PyTorch's
fused attention runs; "eager" asks for the maps, which are then thrown away. Each training step is forward, backward and
Adam. Peak memory is that of a process of its own, less what it had before the step.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import interleave, machine
from marey.losses.multilabel import multilabel_loss
from marey.models.gat import GAT

CLASSES = 431


def contestants(batch: int, frames: int) -> dict[str, Callable[[], Any]]:
    """Name -> function that does one training step or one inference pass."""
    torch.manual_seed(0)
    features = {"rgb": torch.randn(batch, frames, 1024), "audio": torch.randn(batch, frames, 128)}
    lengths = torch.randint(frames // 2, frames + 1, (batch, 1))
    mask, targets = torch.arange(frames)[None] < lengths, (torch.rand(batch, CLASSES) < 0.01).float()
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

    return {"train fused": lambda: step(False), "train eager": lambda: step(True),
            "infer fused": lambda: infer(False), "infer eager": lambda: infer(True)}


def peak_megabytes(name: str, batch: int, frames: int) -> float:
    """Return the memory one contestant adds to a fresh process, in MB."""
    command = [sys.executable, "-m", "benchmarks.gat", "--only", name, "--batch", str(batch), "--frames", str(frames)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="measure the memory of one contestant and print it")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = contestants(options.batch, options.frames)
    if options.only:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found[options.only]()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    timed = {kind: interleave({name: run for name, run in found.items() if name.startswith(kind)}, options.rounds,
                              warmup=0) for kind in ("train", "infer")}
    memory = {name: round(peak_megabytes(name, options.batch, options.frames)) for name in found}
    ratios = {kind: timed[kind]["paired_ratios"][f"{kind} eager"] for kind in timed}
    result = {"command": f"python -m benchmarks.gat --batch {options.batch} --frames {options.frames} --rounds "
                         f"{options.rounds}", "date": datetime.now(UTC).strftime("%Y-%m-%d"), "times": timed,
              "peak_megabytes": memory, "machine": machine("torch"),
              "reading": f"At {options.frames} s and batch {options.batch} on the CPU, eager maps take "
                         f"{ratios['train']:.2f} times as long as fused attention in training and "
                         f"{ratios['infer']:.2f} times in inference; "
                         f"peak memory {memory['train eager']} against {memory['train fused']} MB and "
                         f"{memory['infer eager']} against {memory['infer fused']} MB."}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
