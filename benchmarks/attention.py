"""Directed attention beside quadratic cosine and softmax attention: time, peak memory, growth with
N and T.

    python -m benchmarks.attention --out results/attention.json

`space`: one frame of N tokens. `time`: 49 places of T frames. `joint`: the undivided form over N*T
tokens. All with 12
heads of width 64, forward and backward together. `training_step`: one block of the base model,
forward, cross-entropy, backward and SGD, at 8 x 224. Contestants take turns on one thread and
processor time is counted, so that ratios hold on a busy machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.interleave import interleave, machine
from marey.layers.attention import softmax_weights
from marey.layers.directed_attention import directed_attention
from marey.models import create_model

HEADS, WIDTH, PLACES = 12, 64, 49
SPACE_TOKENS, TIME_FRAMES = (49, 197, 785), (8, 16, 32, 96)
JOINT = ((49, 8), (197, 8))
KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "directed": directed_attention,
    "cosine_quadratic": lambda q, k, v: directed_attention(q, k, v, linear=False),
    "softmax_eager": lambda q, k, v: softmax_weights(q, k) @ v,
    "softmax_fused": F.scaled_dot_product_attention,
}


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most memory that tensors made inside `run` held at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorder:
        run()
    held = peak = 0
    for event in sorted(
        (
            event
            for event in recorder.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ),
        key=lambda event: event.start_ns(),
    ):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def there_and_back(kind: str, batch: int, tokens: int) -> Callable[[], None]:
    """Return a function that runs one attention forward and backward."""
    query, key, value = (
        torch.randn(batch, HEADS, tokens, WIDTH, requires_grad=True) for _ in range(3)
    )

    def run() -> None:
        for tensor in (query, key, value):
            tensor.grad = None
        KINDS[kind](query, key, value).sum().backward()

    return run


def training_step(time_attention: str, space_attention: str) -> Callable[[], None]:
    """Return a function that trains one block of the base model for one step."""
    torch.manual_seed(0)
    model = create_model(
        "direcformer",
        num_classes=27,
        depth=1,
        time_attention=time_attention,
        space_attention=space_attention,
        cls_in_time=time_attention == "cosine",
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    clip, label = torch.randn(1, 8, 3, 224, 224), torch.tensor([3])

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(clip)["logits"], label).backward()
        optimizer.step()

    return run


def compare(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, Any]:
    """Time contestants in turns and measure each one's peak memory."""
    timing = interleave(runs, rounds)
    return {
        "milliseconds": {
            name: round(1000 * value, 3) for name, value in timing["cpu_seconds"].items()
        },
        "times_the_first": timing["cpu_ratios"],
        "peak_megabytes": {name: round(peak_bytes(run) / 2**20, 2) for name, run in runs.items()},
    }


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """Return the slope of log value over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(max(value, 1e-9)) for value in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return round(top / sum((a - mean_x) ** 2 for a in x), 2)


def growth(rows: list[dict[str, Any]], sizes: tuple[int, ...]) -> dict[str, Any]:
    """Return the fitted exponents of time and memory per kind."""
    return {
        kind: {
            "time": exponent(sizes, [row["milliseconds"][kind] for row in rows]),
            "memory": exponent(sizes, [row["peak_megabytes"][kind] for row in rows]),
        }
        for kind in KINDS
    }


def reading(
    space: dict[str, Any], time: dict[str, Any], joint: dict[str, Any], steps: dict[str, Any]
) -> str:
    """Say in words how many times longer the others take than directed attention."""

    def others(row: dict[str, Any]) -> str:
        return ", ".join(
            f"{kind} {row['times_the_first'][kind]}" for kind in KINDS if kind != "directed"
        )

    memory = steps["peak_megabytes"]
    return (
        "Forward and backward, in times of directed attention (cheaper side): one frame of "
        f"{space['N']} tokens: "
        f"{others(space)}; undivided over {joint['N'] * joint['T']} tokens: {others(joint)}. "
        "Short sequences "
        f"gain nothing, norms cost more than the softmax saves: T = {time['T']}: {others(time)}. "
        "A training step "
        "of one block with softmax over both axes takes "
        f"{steps['times_the_first']['softmax-softmax']} of one with "
        f"cosines, and {memory['softmax-softmax']} MB against {memory['cosine-cosine']} MB, which "
        "hold the "
        "normalised queries and keys: projections and MLP dominate the time."
    )


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/attention.json"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = [
        compare({kind: there_and_back(kind, 1, N) for kind in KINDS}, arguments.rounds) | {"N": N}
        for N in SPACE_TOKENS
    ]
    time = [
        compare({kind: there_and_back(kind, PLACES, T) for kind in KINDS}, arguments.rounds)
        | {"T": T}
        for T in TIME_FRAMES
    ]
    joint = [
        compare({kind: there_and_back(kind, 1, N * T) for kind in KINDS}, arguments.rounds)
        | {"N": N, "T": T}
        for N, T in JOINT
    ]
    steps = compare(
        {
            "cosine-cosine": training_step("cosine", "cosine"),
            "softmax-softmax": training_step("softmax", "softmax"),
            "cosine-softmax": training_step("cosine", "softmax"),
        },
        arguments.rounds,
    )
    result = {
        "command": f"python -m benchmarks.attention --rounds {arguments.rounds} --out "
        f"{arguments.out}",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch"),
        "heads": HEADS,
        "head_dim": WIDTH,
        "space": space,
        "time": time,
        "joint": joint,
        "training_step": steps,
        "exponents": {"over_N": growth(space, SPACE_TOKENS), "over_T": growth(time, TIME_FRAMES)},
        "reading": reading(space[1], time[0], joint[1], steps),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
