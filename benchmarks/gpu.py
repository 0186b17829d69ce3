"""TimeSformer-B at 8 x 224 on a GPU, one call under ten minutes: inference and training beside
`transformers`.

    python -m benchmarks.gpu --out results/gpu.json            python -m benchmarks.gpu --dry-run

Measures the card's matrix rate in bf16, copying of uint8 clips to the device with normalisation
there, forward (eager, torch.compile, CUDA graph) and training step in bf16, clips/s, peak memory,
the share of the measured matrix rate, and which attention kernels ran. Each part that fails leaves
its reason. `--dry-run` does every part at toy size on the CPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleave import machine
from benchmarks.training_step import BASE, TINY, build

GOALS = {
    "share_of_matrix_rate_training": 0.5,
    "training_speed_over_transformers": 1.3,
    "training_memory": 0.7,
}


class Bench:
    """Device, sizes and clock of one run."""

    def __init__(self, dry_run: bool, batch: int) -> None:
        self.device = torch.device("cpu" if dry_run else "cuda")
        self.size, self.depth, self.batch = (TINY, 1, 2) if dry_run else (BASE, 12, batch)
        self.rounds = 1 if dry_run else 10
        generator = torch.Generator().manual_seed(0)
        side = self.size["image_size"]
        self.pixels = torch.randint(0, 256, (self.batch, 8, 3, side, side), generator=generator).to(
            torch.uint8
        )

    def seconds(self, run: Callable[[], Any], warmup: int = 3) -> float:
        """Return the median time of a call, the device idle before and after."""
        times = []
        for turn in range(-min(warmup, self.rounds), self.rounds):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            if turn >= 0:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak_megabytes(self, run: Callable[[], Any]) -> float | None:
        """Return the most memory the device held during a call, everything included."""
        if self.device.type != "cuda":
            run()
            return None
        torch.cuda.reset_peak_memory_stats()
        run()
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)

    def on_device(self) -> Tensor:
        """Copy the uint8 clips to the device and normalise them there, bf16 (B, T, 3, S, S)."""
        pixels = self.pixels.to(self.device, non_blocking=True)
        return (pixels.to(torch.bfloat16) / 255 - 0.45) / 0.225

    def model(self, library: str) -> nn.Module:
        """Return the model of a library with the same weights, on the device."""
        return build(library, self.depth, False, self.size).to(self.device)


def matrix_rate(bench: Bench) -> float:
    """Return multiply-adds per second of a large bf16 matrix product."""
    side = 256 if bench.device.type == "cpu" else 8192
    left, right = (
        torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2)
    )
    return side**3 / bench.seconds(lambda: left @ right)


def multiply_adds(bench: Bench) -> float:
    """Return the multiply-adds of one forward of our model at this batch, without the folding."""
    model, clip = (
        build("marey", bench.depth, False, bench.size).eval(),
        bench.on_device().float().cpu()[:1],
    )
    with torch.device("meta"):
        twin = type(model)(**model.arguments).eval()  # type: ignore[arg-type]
    with FlopCounterMode(display=False) as counter:
        twin(clip.to("meta"))
    return counter.get_total_flops() / 2 * bench.batch


def infer(bench: Bench, library: str, how: str) -> dict[str, Any]:
    """Measure a bf16 forward: "eager", "compile" or "graph"."""
    model = bench.model(library).eval().to(torch.bfloat16)
    clip = bench.on_device()
    run: Callable[[], Any] = lambda: model(clip)  # noqa: E731
    if how == "compile":
        compiled = torch.compile(
            model, backend="eager" if bench.device.type == "cpu" else "inductor"
        )
        run = lambda: compiled(clip)  # noqa: E731
    with torch.inference_mode(how != "compile"), torch.no_grad():
        if how == "graph" and bench.device.type == "cuda":
            for _ in range(3):
                model(clip)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                model(clip)
            run = graph.replay
        seconds = bench.seconds(run)
        return {
            "seconds": seconds,
            "clips_per_second": round(bench.batch / seconds, 2),
            "megabytes": bench.peak_megabytes(run),
        }


def train(bench: Bench, library: str, compiled: bool) -> dict[str, Any]:
    """Measure a training step in bf16 autocast with fused AdamW, uint8 copied to the device each
    time."""
    model = bench.model(library).train()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    called = (
        torch.compile(model, backend="eager" if bench.device.type == "cpu" else "inductor")
        if compiled
        else model
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    labels = torch.arange(bench.batch, device=bench.device)

    def step() -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            outputs = called(bench.on_device().float())
            logits = outputs["logits"] if library == "marey" else outputs.logits
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = bench.seconds(step)
    return {
        "seconds": seconds,
        "clips_per_second": round(bench.batch / seconds, 2),
        "megabytes": bench.peak_megabytes(step),
    }


def attention_kernels(bench: Bench) -> list[str]:
    """Return the names of attention operations that a training step runs, from PyTorch's
    profiler."""
    from torch.profiler import ProfilerActivity, profile

    model = bench.model("marey").train()
    activities = [ProfilerActivity.CPU] + (
        [ProfilerActivity.CUDA] if bench.device.type == "cuda" else []
    )
    with profile(activities=activities) as found, torch.autocast(bench.device.type, torch.bfloat16):
        model(bench.on_device().float())["logits"].sum().backward()
    return sorted(
        {
            event.key
            for event in found.key_averages()
            if "attention" in event.key or "fmha" in event.key or "flash" in event.key
        }
    )[:20]


def measure(bench: Bench) -> dict[str, Any]:
    """Run every part; one that fails leaves its reason."""
    parts: dict[str, Callable[[], Any]] = {
        "matrix_multiply_adds_per_second": lambda: matrix_rate(bench),
        "multiply_adds_of_a_forward": lambda: multiply_adds(bench),
        "copy_and_normalise_seconds": lambda: bench.seconds(bench.on_device),
        "infer transformers": lambda: infer(bench, "transformers", "eager"),
        "infer marey": lambda: infer(bench, "marey", "eager"),
        "infer marey, CUDA graph": lambda: infer(bench, "marey", "graph"),
        "infer marey, compiled": lambda: infer(bench, "marey", "compile"),
        "train transformers": lambda: train(bench, "transformers", False),
        "train marey": lambda: train(bench, "marey", False),
        "train marey, compiled": lambda: train(bench, "marey", True),
        "attention_kernels": lambda: attention_kernels(bench),
    }
    found: dict[str, Any] = {}
    for name, run in parts.items():
        try:
            found[name] = run()
        except Exception as error:
            found[name] = {
                "failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            }
        print(name, found[name], flush=True)
    return found


def verdict(found: dict[str, Any], batch: int) -> dict[str, Any]:
    """Put the best training step beside the goals; a step costs three forwards of multiply-adds."""
    steps = {
        name: row
        for name, row in found.items()
        if name.startswith("train marey") and "seconds" in row
    }
    peer = found["train transformers"]
    if not steps or "seconds" not in peer:
        return {"goals": GOALS, "measured": {}, "met": {}}
    best = min(steps, key=lambda name: steps[name]["seconds"])
    measured = {
        "training_speed_over_transformers": round(peer["seconds"] / steps[best]["seconds"], 3)
    }
    if steps[best]["megabytes"] and peer["megabytes"]:
        measured["training_memory"] = round(steps[best]["megabytes"] / peer["megabytes"], 3)
    if all(
        isinstance(found[key], float)
        for key in ("matrix_multiply_adds_per_second", "multiply_adds_of_a_forward")
    ):
        rate = 3 * found["multiply_adds_of_a_forward"] / steps[best]["seconds"]
        measured["share_of_matrix_rate_training"] = round(
            rate / found["matrix_multiply_adds_per_second"], 3
        )
    met = {
        name: value <= GOALS[name] if "memory" in name else value >= GOALS[name]
        for name, value in measured.items()
    }
    return {"goals": GOALS, "best": best, "batch": batch, "measured": measured, "met": met}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/gpu.json"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--dry-run", action="store_true", help="toy sizes on the CPU, nothing is written"
    )
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand; --dry-run runs every part at toy size on the CPU")
    torch.set_float32_matmul_precision("high")
    bench = Bench(options.dry_run, options.batch)
    found = measure(bench)
    result = {
        "command": f"python -m benchmarks.gpu --batch {options.batch} --out {options.out}",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch", "transformers"),
        "device": "cpu" if options.dry_run else torch.cuda.get_device_name(),
        **found,
        **verdict(found, bench.batch),
    }
    print(json.dumps(result, indent=1))
    if not options.dry_run:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
