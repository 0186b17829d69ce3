"""A training step of TimeSformer-B at 8 x 224 beside `transformers` with the same weights, batch
and optimiser.

    python -m benchmarks.training_step --out results/training_step.json

A step is forward, cross-entropy, backward, fused AdamW. `transformers` has eager attention only for
this model (asked for "sdpa" it refuses), stores every attention map for the backward pass and runs
the two temporal projections one after the other. `--depth` makes both models shallower where twelve
blocks are too slow; every block costs the same, so ratios of speed carry over, and memory per block
does. Time: turns A B A B in one process, processor seconds on one thread. Memory: one step in a
process of its own, its peak less what it held before the model was built.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.inference import strong_weights
from benchmarks.interleave import interleave, machine
from marey.checkpoints.huggingface import to_hf_name
from marey.models import create_model

CONTESTANTS: dict[str, tuple[str, bool, Any]] = {
    "transformers fp32": ("transformers", False, False),
    "marey fp32": ("marey", False, False),
    "marey fp32, cheap checkpointing": ("marey", False, "cheap"),
    "marey fp32, checkpointing": ("marey", False, True),
    "transformers bf16": ("transformers", True, False),
    "marey bf16": ("marey", True, False),
    "marey bf16, cheap checkpointing": ("marey", True, "cheap"),
    "marey bf16, checkpointing": ("marey", True, True),
}
"""Name -> library, bf16 autocast, activation checkpointing (`transformers` refuses it for this
model)."""

GOALS = {"speed": 1.3, "memory": 0.7}


BASE = {"image_size": 224, "embed_dim": 768, "num_heads": 12}
TINY = {"image_size": 32, "embed_dim": 24, "num_heads": 2}


def build(library: str, depth: int, checkpointing: Any, size: dict[str, int]) -> nn.Module:
    """Return a model of `depth` blocks in training mode; both libraries get the same weights."""
    ours = create_model(
        "timesformer", num_classes=400, depth=depth, activation_checkpointing=checkpointing, **size
    )
    strong_weights(ours)
    if library == "marey":
        return ours.train()
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    theirs = TimesformerForVideoClassification(
        TimesformerConfig(
            num_labels=400,
            num_hidden_layers=depth,
            image_size=size["image_size"],
            hidden_size=size["embed_dim"],
            num_attention_heads=size["num_heads"],
            intermediate_size=4 * size["embed_dim"],
        )
    )
    theirs.load_state_dict({to_hf_name(name): value for name, value in ours.state_dict().items()})
    return theirs.train()


def step_of(name: str, depth: int, batch: int, size: dict[str, int] = BASE) -> Callable[[], float]:
    """Return a function that does one training step and returns its loss."""
    library, half, checkpointing = CONTESTANTS[name]
    model = build(library, depth, checkpointing, size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(batch, 8, 3, size["image_size"], size["image_size"], generator=generator)
    labels = torch.arange(batch)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = model(clip)
            logits = outputs["logits"] if library == "marey" else outputs.logits
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def status_megabytes(field: str) -> float:
    """Return a field of this process's memory status (VmRSS now, VmHWM at its peak), in MB of 2^20
    bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def memory_of(name: str, depth: int, batch: int) -> dict[str, float]:
    """Return loss and peak memory of two steps in a fresh process; with the optimiser's state from
    the first on."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.training_step",
        "--only",
        name,
        "--depth",
        str(depth),
        "--batch",
        str(batch),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_memory(name: str, depth: int, batch: int) -> dict[str, float]:
    """Return the peak of this process over two steps, less what it held before; a tiny model loads
    all code first."""
    step_of(name, 1, 1, TINY)()
    before = status_megabytes("VmRSS")
    step = step_of(name, depth, batch)
    losses = [step(), step()]
    return {"megabytes": round(status_megabytes("VmHWM") - before, 1), "loss": losses[0]}


def measure(depth: int, batch: int, rounds: int, names: list[str]) -> dict[str, Any]:
    """Time all contestants in turns, then measure each one's memory."""
    timing = interleave({name: step_of(name, depth, batch) for name in names}, rounds)
    memory = {name: memory_of(name, depth, batch) for name in names}
    seconds = timing["cpu_seconds" if torch.get_num_threads() == 1 else "seconds"]
    rows = {}
    for name in names:
        peer = "transformers " + ("bf16" if CONTESTANTS[name][1] else "fp32")
        rows[name] = {
            "seconds": seconds[name],
            "megabytes": memory[name]["megabytes"],
            "loss": memory[name]["loss"],
        }
        for versus in (
            {peer, "transformers fp32"} & set(names) if CONTESTANTS[name][0] == "marey" else ()
        ):
            rows[name][f"speed over {versus}"] = round(seconds[versus] / seconds[name], 3)
            rows[name][f"memory over {versus}"] = round(
                memory[name]["megabytes"] / memory[versus]["megabytes"], 3
            )
    return {"depth": depth, "batch": batch, "timing": timing, "contestants": rows}


def verdict(rows: dict[str, Any]) -> dict[str, Any]:
    """Put the best of each precision, and the recommended setting, beside the goals."""
    measured, met = {}, {}
    for key, name, peer in (
        ("fp32", "marey fp32", "transformers fp32"),
        ("fp32_cheap_checkpointing", "marey fp32, cheap checkpointing", "transformers fp32"),
        ("bf16", "marey bf16", "transformers bf16"),
        ("bf16_cheap_checkpointing", "marey bf16, cheap checkpointing", "transformers bf16"),
        ("bf16_against_fp32", "marey bf16", "transformers fp32"),
        ("bf16_cheap_against_fp32", "marey bf16, cheap checkpointing", "transformers fp32"),
    ):
        if f"speed over {peer}" in rows.get(name, {}):
            for what in GOALS:
                measured[f"{key}_{what}"] = rows[name][f"{what} over {peer}"]
            met[f"{key}_speed"] = measured[f"{key}_speed"] >= GOALS["speed"]
            met[f"{key}_memory"] = measured[f"{key}_memory"] <= GOALS["memory"]
    return {"goals": GOALS, "measured": measured, "met": met}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/training_step.json"))
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contestants", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument(
        "--only", choices=CONTESTANTS, help="measure the memory of one contestant and print it"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        print(json.dumps(measure_memory(options.only, options.depth, options.batch)))
        return
    result = measure(options.depth, options.batch, options.rounds, options.contestants)
    result = {
        "command": f"python -m benchmarks.training_step --depth {options.depth} --batch "
        f"{options.batch} "
        f"--rounds {options.rounds} --threads {options.threads} --out {options.out}",
        "clock": "processor seconds" if options.threads == 1 else "wall seconds",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch", "transformers"),
        **result,
        **verdict(result["contestants"]),
    }
    result["reading"] = reading(result)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def reading(result: dict[str, Any]) -> str:
    """Say in words what was met."""
    parts = [
        f"{name} {value}: {'met' if result['met'][name] else 'not met'}"
        for name, value in result["measured"].items()
    ]
    return (
        f"{result['depth']} of TimeSformer-B's 12 blocks, batch {result['batch']} (goals: speed "
        "at least 1.3 "
        f"times, memory at most 0.7 times theirs): {'; '.join(parts)}. Both use fused AdamW; "
        "weights, "
        "gradients and the two moments are the same on both sides and weigh more in memory the "
        "smaller the batch. "
        "In fp32 nearly all of the time is matrix products that both must do, so equal arithmetic "
        "bounds the gain."
    )


if __name__ == "__main__":
    main()
