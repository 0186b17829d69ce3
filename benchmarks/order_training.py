"""A whole DirecFormer training step, by attention kind and by losses: time and peak memory.

    python -m benchmarks.order_training --out results/direcformer_training_step.json

Two blocks of width 192 with 3 heads; a step is the ordered and the permuted clip in one forward,
the losses of Eq. 14, backward and AdamW. The guided loss needs the attention maps, so "all" cannot
take the cheaper side of directed attention; "class, order" can. Contestants take turns, so ratios
hold on a busy machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.attention import peak_bytes
from benchmarks.interleave import interleave, machine
from marey.models import create_model
from marey.order.permutations import make_permutation_set
from marey.training.tasks.clips import ClipsObjective
from marey.training.terms.classification import ClassTerm
from marey.training.terms.order import GuidedTerm, OrderTerm, PermutedClips

KINDS = {"C-C": ("cosine", "cosine"), "C-S": ("cosine", "softmax"), "S-S": ("softmax", "softmax")}
LOSSES = {
    "class, order": {"class": 1.0, "order": 1.0},
    "all": {"class": 1.0, "order": 1.0, "guided": 1.0},
}
SIZES = ((7, 8), (7, 16), (7, 32), (7, 96), (14, 8), (28, 8))
"""(patches per side, frames T): N = 49, 196, 784 places."""


def training_step(kind: str, losses: str, side: int, num_frames: int) -> Callable[[], None]:
    """Return a function that trains one clip for one step."""
    torch.manual_seed(0)
    time_attention, space_attention = KINDS[kind]
    model = create_model(
        "direcformer",
        num_classes=27,
        num_orders=100,
        num_frames=num_frames,
        image_size=16 * side,
        embed_dim=192,
        depth=2,
        num_heads=3,
        time_attention=time_attention,
        space_attention=space_attention,
    ).train()
    rows = make_permutation_set(100, num_frames, rule="random")
    terms = {"class": ClassTerm(), "order": OrderTerm(), "guided": GuidedTerm()}
    weights = LOSSES[losses]
    objective = ClipsObjective(
        weights,
        {name: terms[name] for name in weights},
        num_classes=27,
        permuted_clips=PermutedClips(rows, [str(k) for k in range(27)]),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = {
        "clip": torch.randn(1, num_frames, 3, 16 * side, 16 * side),
        "label": torch.tensor([3]),
    }

    def run() -> None:
        optimizer.zero_grad()
        _, terms = objective(model, batch)
        objective.total(terms).backward()
        optimizer.step()

    return run


def compare(side: int, num_frames: int, rounds: int) -> dict[str, Any]:
    """Time all kinds and losses at one size in turns, and measure each one's peak memory."""
    runs = {
        f"{kind}, {losses}": training_step(kind, losses, side, num_frames)
        for losses in LOSSES
        for kind in KINDS
    }
    timing = interleave(runs, rounds)
    return {
        "N": side * side,
        "T": num_frames,
        "milliseconds": {name: round(1000 * value, 2) for name, value in timing["seconds"].items()},
        "times_the_first": timing["paired_ratios"],
        "cpu_times_the_first": timing["cpu_ratios"],
        "peak_megabytes": {name: round(peak_bytes(run) / 2**20, 1) for name, run in runs.items()},
    }


def reading(rows: list[dict[str, Any]]) -> str:
    """Say what softmax costs in times of directed attention, with and without the maps the guided
    loss needs."""
    said = []
    for row in rows:
        times, memory = row["cpu_times_the_first"], row["peak_megabytes"]
        plain, guided = "C-C, class, order", "C-C, all"
        said.append(
            f"N={row['N']}, T={row['T']}: softmax takes {times['S-S, class, order']:.2f} of the "
            "processor time "
            f"and {memory['S-S, class, order'] / memory[plain]:.2f} of the memory of C-C, the "
            "guided loss on "
            f"C-C {times[guided]:.2f} and {memory[guided] / memory[plain]:.2f}"
        )
    return "A whole training step without the guided loss, C-C = 1. " + "; ".join(said) + "."


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/direcformer_training_step.json"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compare(side, num_frames, arguments.rounds) for side, num_frames in SIZES]
    result = {
        "command": f"python -m benchmarks.order_training --rounds {arguments.rounds} --out "
        f"{arguments.out}",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch"),
        "clips_per_step": 2,
        "rows": rows,
        "reading": reading(rows),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(result["reading"])


if __name__ == "__main__":
    main()
