"""What lets the guided loss of DirecFormer be learned at mini scale: the permutation set, and the loss's weight.

    python -m benchmarks.order_settings --cache results/direcformer/cache --out results/direcformer_settings.json

C-C with all losses, 400 steps, one seed each: 16 or 1,000 rows of the farthest rule x the guided loss weighing 1 or 10.
"shortcut" is how far the loss falls by place alone (`marey.losses.order.place_shortcut`); "pairs" the share of frame
pairs whose direction the last block has right on test clips (0.5 by chance), "path" and "sort" their OrderAcc.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.order_readout import CLIPS, read_order
from marey.checkpoints.load import load_checkpoint
from marey.losses.order import place_shortcut
from marey.metrics.order import chance_order_accuracy
from marey.order.permutations import make_permutation_set
from marey.papers.direcformer import MAIN, mini_config, mini_task, mocap_features
from marey.training.loop import train

STEPS = 400


def measure(cache: Path, rows: int, weight: float) -> dict[str, Any]:
    """Train one setting and read the order from its last block."""
    config, clips = mini_config(MAIN[1], 0), mocap_features(cache)
    objective = replace(config.objective, weights={**config.objective.weights, "guided": weight},
                        arguments={**config.objective.arguments, "num_permutations": rows})
    config = replace(config, objective=objective,
                     train=replace(config.train, max_steps=STEPS, eval_every=STEPS))
    out = cache / "runs" / f"settings-{rows}-{weight:g}"
    shutil.rmtree(out, ignore_errors=True)
    train(config, out, task=mini_task(config, clips), quiet=True)
    last = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines() if '"guided"' in line][-1]
    model = load_checkpoint(out / "last").model.eval()
    read = read_order(model, clips.split("test").features[:CLIPS].float())[-1]
    return {"rows": rows, "weight": weight, "guided_loss": last["guided"],
            "shortcut": place_shortcut(make_permutation_set(rows, 8, rule="farthest")),
            **{key: read[key] for key in ("pairs", "path", "sort")}}


def main() -> None:
    """Measure every setting, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("results/direcformer/cache"))
    parser.add_argument("--out", type=Path, default=Path("results/direcformer_settings.json"))
    arguments = parser.parse_args()
    found = []
    for rows in (16, 1000):
        for weight in (1.0, 10.0):
            found.append(measure(arguments.cache, rows, weight))
            print(found[-1], flush=True)
    told = "; ".join(f"{row['rows']} rows at weight {row['weight']:g}: {row['pairs']:.0%}" for row in found)
    shortcuts = {rule: {rows: round(place_shortcut(make_permutation_set(rows, 8, rule=rule)), 3)
                        for rows in (16, 1000)} for rule in ("closest", "farthest", "random")}
    result = {"command": f"python -m benchmarks.order_settings --cache {arguments.cache} --out {arguments.out}",
              "date": datetime.date.today().isoformat(), "steps": STEPS, "test_clips": CLIPS, "seeds": 1,
              "chance": {"pairs": 0.5, "order_accuracy": chance_order_accuracy(8)}, "shortcuts": shortcuts,
              "settings": found, "reading": f"Pairs of frames in the right direction after {STEPS} steps: {told}."}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(result["reading"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
