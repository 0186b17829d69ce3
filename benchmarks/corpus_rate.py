"""Processor-seconds per video of a bundled model on real files: what `docs/scale.md` multiplies.

    python -m benchmarks.corpus_rate --data ../shared/data/surv_fight --videos 50 --out results/corpus_rate.json

One process, one thread, one view per video: open, decode, transform, forward, answer. Loading the model is not counted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from pathlib import Path

import torch

from benchmarks.interleave import machine
from marey.datasets.open import open_dataset
from marey.errors import VideoError
from marey.inference.predictor import Predictor


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/corpus_rate.json"))
    parser.add_argument("--data", default="../shared/data/surv_fight")
    parser.add_argument("--videos", type=int, default=50)
    parser.add_argument("--model", default="marey-mini")
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = open_dataset(options.data).samples
    chosen = [samples[int(place * len(samples) / options.videos)].path for place in range(options.videos)]
    predictor = Predictor.load(options.model, views=1)
    predictor(chosen[0])
    seconds, unreadable = [], 0
    for path in chosen:
        start = time.process_time()
        try:
            predictor(path)
        except VideoError:
            unreadable += 1
            continue
        seconds.append(time.process_time() - start)
    mean = statistics.mean(seconds)
    hours = {name: round(count * mean / 3600, 1) for name, count in (("10^6", 10**6), ("10^9", 10**9))}
    result = {"command": f"python -m benchmarks.corpus_rate --data {options.data} --videos {options.videos} "
                         f"--out {options.out}", "date": datetime.date.today().isoformat(),
              "machine": machine("torch", "av"), "model": options.model, "videos": len(seconds),
              "unreadable": unreadable,
              "processor_seconds_per_video": {"mean": round(mean, 4), "median": round(statistics.median(seconds), 4),
                                              "largest": round(max(seconds), 4),
                                              "deviation": round(statistics.stdev(seconds), 4)},
              "core_hours": hours,
              "reading": f"{options.model} with one view takes {mean:.3f} processor-seconds per video (median "
                         f"{statistics.median(seconds):.3f}) on {len(seconds)} real videos, one thread of this machine "
                         f"under load: {hours['10^6']} core-hours for 10^6 such videos and {hours['10^9']:,.0f} for "
                         "10^9, computed from this rate, not run. Reading from remote storage is not in it."}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
