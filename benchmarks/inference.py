"""TimeSformer-B forward at 8 x 224 beside `transformers`, with the same weights, in one interleaved
run.

    python -m benchmarks.inference --out results/inference.json

Contestants take turns (A B A B ...), so the ratios hold on a busy machine; the matrix-multiply rate
is measured in the same turns on the shapes the model multiplies, (tokens x 768) by (768 x 3072).
With one thread, processor time is counted, which other processes disturb less than wall time.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleave import interleave, machine
from marey.checkpoints.huggingface import to_hf_name
from marey.layers.transformer_block import fold_temporal_projection
from marey.models import create_model

GOALS = {"fp32_speedup": 1.1, "bf16_speedup": 2.0, "share_of_matmul_rate_fp32": 0.85}


def strong_weights(model: nn.Module) -> None:
    """Draw weights anew so that the temporal path and the logits are far from zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.04, generator=generator)
            elif "norm" not in name:
                parameter.normal_(0, 0.02, generator=generator)


def reference_model(ours: nn.Module) -> nn.Module:
    """Return `transformers`' TimeSformer with our weights."""
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    theirs = TimesformerForVideoClassification(TimesformerConfig(num_labels=400)).eval()
    theirs.load_state_dict({to_hf_name(name): value for name, value in ours.state_dict().items()})
    return theirs


def multiply_adds(model: nn.Module, clip: torch.Tensor) -> float:
    """Count the multiply-adds that one forward executes, folding included."""
    with torch.device("meta"):
        twin = create_model("timesformer", **model.arguments).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        fold_temporal_projection(twin)
        folding = counter.get_total_flops()
        twin(clip.to("meta"))
        return (counter.get_total_flops() - folding) / 2


def matmul(dtype: torch.dtype, tokens: int, repeats: int) -> Callable[[], None]:
    """Return a function that multiplies the model's most common shapes `repeats` times."""
    left, weight = torch.randn(tokens, 768).to(dtype), torch.randn(3072, 768).to(dtype)

    def run() -> None:
        for _ in range(repeats):
            F.linear(left, weight)

    return run


def measure(batch: int, rounds: int) -> dict[str, Any]:
    """Time all contestants and put their ratios beside the goals."""
    torch.manual_seed(0)
    ours = create_model("timesformer", num_classes=400).eval()
    strong_weights(ours)
    theirs, half = reference_model(ours), create_model("timesformer", num_classes=400).eval()
    half.load_state_dict(ours.state_dict())
    half = half.to(torch.bfloat16)
    clip = torch.randn(batch, 8, 3, 224, 224)
    tokens, repeats = batch * 1569, 20
    with torch.inference_mode():
        timing = interleave(
            {
                "ours_fp32": lambda: ours(clip),
                "transformers_fp32": lambda: theirs(clip),
                "ours_bf16": lambda: half(clip.bfloat16()),
                "matmul_fp32": matmul(torch.float32, tokens, repeats),
                "matmul_bf16": matmul(torch.bfloat16, tokens, repeats),
            },
            rounds,
        )
        answers = [
            ours(clip)["logits"],
            theirs(clip).logits,
            half(clip.bfloat16())["logits"].float(),
        ]
    seconds = timing["cpu_seconds" if torch.get_num_threads() == 1 else "seconds"]
    executed = multiply_adds(ours, clip)
    rate = {
        kind: repeats * tokens * 768 * 3072 / seconds[f"matmul_{kind}"] for kind in ("fp32", "bf16")
    }
    matmul_ratio = rate["bf16"] / rate["fp32"]
    goals = GOALS | {"bf16_speedup": 2.0 if matmul_ratio >= 1.8 else round(0.85 * matmul_ratio, 3)}
    got = {
        "fp32_speedup": round(seconds["transformers_fp32"] / seconds["ours_fp32"], 3),
        "bf16_speedup": round(seconds["transformers_fp32"] / seconds["ours_bf16"], 3),
        "share_of_matmul_rate_fp32": round(executed / seconds["ours_fp32"] / rate["fp32"], 3),
        "share_of_matmul_rate_bf16": round(executed / seconds["ours_bf16"] / rate["bf16"], 3),
    }
    return {
        "batch": batch,
        "timing": timing,
        "multiply_adds_executed_per_clip": executed / batch,
        "matmul_multiply_adds_per_second": rate,
        "bf16_over_fp32_matmul": round(matmul_ratio, 3),
        "goals": goals,
        "measured": got,
        "met": {name: got[name] >= goal for name, goal in goals.items()},
        "max_difference_of_logits_fp32": float((answers[0] - answers[1]).abs().max()),
        "largest_logit": float(answers[1].abs().max()),
        "top1_equal": {
            "fp32": bool((answers[0].argmax(-1) == answers[1].argmax(-1)).all()),
            "bf16": bool((answers[2].argmax(-1) == answers[1].argmax(-1)).all()),
        },
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/inference.json"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {
        "command": f"python -m benchmarks.inference --batch {arguments.batch} --rounds "
        f"{arguments.rounds} "
        f"--threads {arguments.threads} --out {arguments.out}",
        "clock": "processor seconds" if arguments.threads == 1 else "wall seconds",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch", "transformers"),
        "threads": arguments.threads,
        **measure(arguments.batch, arguments.rounds),
    }
    result["reading"] = reading(result)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def reading(result: dict[str, Any]) -> str:
    """Say in words what was met."""
    got, goals = result["measured"], result["goals"]
    parts = [
        f"{name} {got[name]} against a goal of {goal}: "
        f"{'met' if result['met'][name] else 'not met'}"
        for name, goal in goals.items()
    ]
    return (
        f"{'; '.join(parts)}. bf16 matrix products ran {result['bf16_over_fp32_matmul']} times as "
        "fast as fp32 "
        "ones in the same turns. Shares of the rate count the multiply-adds really executed, "
        "after folding. Both "
        "models carry the same random weights of a size that makes time matter; "
        f"{result['batch']} random clip(s) "
        "per forward, so equal top-1 is a check of the arithmetic, not of accuracy."
    )


if __name__ == "__main__":
    main()
