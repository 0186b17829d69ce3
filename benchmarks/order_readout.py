"""How much order the directed matrix of the mini runs holds, by block and by the way it is read.

    python -m benchmarks.order_readout --cache results/direcformer/cache --out results/direcformer_readout.json

Test clips as recorded, each shuffled once (seed 0). "pairs": share of frame pairs whose direction the sign of
a(t, t') - a(t', t) has right (0.5 by chance); "path": OrderAcc of the heaviest path; "sort": OrderAcc of sorting by
outgoing minus incoming weight. The same on training clips tells learning by heart from learning too little.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.losses.order import order_signs
from marey.metrics.order import chance_order_accuracy, order_accuracy
from marey.order.correction import order_matrix, permute_frames
from marey.order.path import hamiltonian_path, sorted_path
from marey.order.permutations import random_permutations
from marey.papers.direcformer import mocap_features

CLIPS = 300
"""Clips of each split."""


@torch.inference_mode()
def read_order(model: nn.Module, clips: Tensor) -> list[dict[str, Any]]:
    """Return one row per block: pairs, path and sort."""
    T = clips.shape[1]
    order = random_permutations(len(clips), T, torch.Generator().manual_seed(0))
    parts = [model(permute_frames(clip, o), return_attention=True)["attention_time"]
             for clip, o in zip(clips.split(64), order.split(64), strict=True)]
    rows = []
    for block in range(len(parts[0])):
        weights = torch.cat([order_matrix(part[:block + 1], T) for part in parts])
        above = torch.ones(T, T).triu(1).bool()
        right = (weights - weights.transpose(1, 2)).sign() == order_signs(order)
        rows.append({"block": block, "pairs": float(right[:, above].double().mean()),
                     "path": float(order_accuracy(hamiltonian_path(weights)[0], order).mean()),
                     "sort": float(order_accuracy(sorted_path(weights)[0], order).mean())})
    return rows


def main() -> None:
    """Measure every run of the cache, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("results/direcformer/cache"))
    parser.add_argument("--out", type=Path, default=Path("results/direcformer_readout.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips = mocap_features(arguments.cache)
    train, test = (clips.split(split).features[:CLIPS].float() for split in ("train", "test"))
    runs: dict[str, Any] = {}
    for folder in sorted((arguments.cache / "runs").glob("*-seed*/last")):
        model = load_checkpoint(folder).model
        runs[folder.parent.name] = {"test": read_order(model, test), "train": read_order(model, train)}
        print(folder.parent.name, runs[folder.parent.name]["test"][-1], flush=True)
    whole = [run for name, run in runs.items() if name.startswith("C-C_+L_ord+L_self-seed")]
    last = {key: statistics.fmean(run["test"][-1][key] for run in whole) for key in ("pairs", "path", "sort")}
    trained = statistics.fmean(run["train"][-1]["pairs"] for run in whole)
    cause = "learned too little" if trained - last["pairs"] < 0.05 else "learned by heart"
    result = {"command": f"python -m benchmarks.order_readout --cache {arguments.cache} --out {arguments.out}",
              "date": datetime.date.today().isoformat(), "test_clips": len(test),
              "chance": {"pairs": 0.5, "order_accuracy": chance_order_accuracy(8)}, "runs": runs,
              "reading": f"C-C with all losses, last block, mean of {len(whole)} seeds: {last['pairs']:.1%} of the "
                         f"pairs right on test clips, {trained:.1%} on training clips ({cause}). From it the heaviest "
                         f"path makes OrderAcc {last['path']:.1%}, sorting by net weight {last['sort']:.1%}."}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(result["reading"])


if __name__ == "__main__":
    main()
