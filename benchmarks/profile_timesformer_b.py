"""Where the time of a TimeSformer-B forward and training step goes, by PyTorch's profiler.

    python -m benchmarks.profile_timesformer_b --out results/profile_timesformer_b.json [--depth 12]
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.interleave import machine
from benchmarks.training_step import step_of
from marey.models import create_model

GROUPS = {"matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "mkldnn", "aten::baddbmm"),
          "attention": ("attention", "softmax"), "GELU": ("gelu",), "layer norm": ("layer_norm",),
          "copies and joins": ("aten::copy_", "aten::cat", "aten::clone", "aten::fill_", "aten::zero_"),
          "optimiser": ("adam",)}


def group_of(operation: str) -> str:
    """Return the group an operation counts under."""
    return next((name for name, words in GROUPS.items() if any(word in operation for word in words)), "other")


def table(run: Callable[[], Any]) -> dict[str, Any]:
    """Profile one call after an unmeasured one: shares of each group, and the ten longest operations."""
    run()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    rows = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in rows)
    shares: dict[str, float] = dict.fromkeys([*GROUPS, "other"], 0.0)
    for event in rows:
        shares[group_of(event.key)] += event.self_cpu_time_total / total
    return {"shares": {name: round(value, 4) for name, value in shares.items()},
            "longest": [{"operation": event.key, "share": round(event.self_cpu_time_total / total, 4),
                         "calls": event.count} for event in rows[:10]]}


def main() -> None:
    """Parse, profile, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/profile_timesformer_b.json"))
    parser.add_argument("--depth", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clip = torch.randn(1, 8, 3, 224, 224)
    model = create_model("timesformer", num_classes=400, depth=options.depth).eval()
    half = create_model("timesformer", num_classes=400, depth=options.depth).eval().to(torch.bfloat16)
    with torch.inference_mode():
        parts = {"forward fp32": table(lambda: model(clip)), "forward bf16": table(lambda: half(clip.bfloat16()))}
    parts |= {f"training step {kind}": table(step_of(f"marey {kind}", options.depth, 1)) for kind in ("fp32", "bf16")}
    result = {"command": f"python -m benchmarks.profile_timesformer_b --depth {options.depth} --out {options.out}",
              "date": datetime.date.today().isoformat(), "machine": machine("torch"), "depth": options.depth, **parts,
              "reading": f"{options.depth} of 12 blocks, one clip, one thread. " + " ".join(
                  f"{name}: " + ", ".join(f"{group} {share:.0%}" for group, share in
                                          sorted(part["shares"].items(), key=lambda row: -row[1]) if share >= 0.01)
                  + "." for name, part in parts.items())
                  + " Profiled wall time of each operation on a busy machine: shares are good to a few percent."}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
