"""Clips per second from files into the model, the share of time it waits, and how its cost grows
with T and N.

    python -m benchmarks.pipeline --out results/pipeline.json

Videos are made on the spot (H.264, 320 x 240, 90 frames). `loading`: decode, sample and transform
to 8 x 224, with 0, 1 and 2 worker processes. `feeding`: the same into forward and backward of a
small TimeSformer; waiting is the time spent in the loader's `next`. `growth`: processor time of a
forward of width 64, two blocks, over T frames and N places.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.attention import exponent
from benchmarks.interleave import interleave, machine
from marey.datasets.clips import ClipDataset, collate_clips
from marey.datasets.open import open_dataset
from marey.models import create_model
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video

WORKERS, FRAMES, SIDES = (0, 1, 2), (8, 16, 32, 96), (7, 14, 28)


def make_videos(folder: Path, count: int) -> None:
    """Write videos of drifting texture in two class folders."""
    for place in range(count):
        ground = torch.randint(
            0, 255, (3, 15, 20), generator=torch.Generator().manual_seed(place)
        ).float()
        big = torch.nn.functional.interpolate(ground[None], (240, 320), mode="bilinear")[0].to(
            torch.uint8
        )
        target = folder / "ab"[place % 2] / f"{place}.mp4"
        target.parent.mkdir(exist_ok=True)
        write_video(target, (big.roll(3 * t, dims=2) for t in range(90)), fps=30)


def feed(
    data: ClipDataset, workers: int, batch: int, model: torch.nn.Module | None
) -> dict[str, float]:
    """Run once over the data; returns clips/s and the share of time spent waiting for it."""
    keys = [
        [(0, place) for place in range(start, min(start + batch, len(data)))]
        for start in range(0, len(data), batch)
    ]
    loader = DataLoader(data, batch_sampler=keys, collate_fn=collate_clips, num_workers=workers)  # type: ignore[arg-type]
    batches = iter(loader)
    next(batches)  # workers start, code is loaded
    start, waited, clips = time.perf_counter(), 0.0, 0
    while True:
        asked = time.perf_counter()
        item = next(batches, None)
        waited += time.perf_counter() - asked
        if item is None:
            break
        clips += len(item["label"])
        if model is not None:
            model(item["clip"])["logits"].sum().backward()
    seconds = time.perf_counter() - start
    return {
        "clips_per_second": round(clips / seconds, 2),
        "waiting_share": round(waited / seconds, 3),
    }


def growth(rounds: int) -> dict[str, Any]:
    """Return processor seconds over T and over N, with the fitted exponents."""

    def forward_of(T: int, side: int) -> Any:
        model = create_model(
            "timesformer",
            num_classes=10,
            num_frames=T,
            image_size=8 * side,
            patch_size=8,
            embed_dim=64,
            depth=2,
            num_heads=2,
        ).eval()
        clip = torch.randn(1, T, 3, 8 * side, 8 * side)
        return lambda: model(clip)

    with torch.inference_mode():
        over_t = interleave({str(T): forward_of(T, 7) for T in FRAMES}, rounds)["cpu_seconds"]
        over_n = interleave({str(side**2): forward_of(8, side) for side in SIDES}, rounds)[
            "cpu_seconds"
        ]
    return {
        "seconds_over_T": over_t,
        "seconds_over_N": over_n,
        "exponents": {
            "over_T": exponent(FRAMES, list(over_t.values())),
            "over_N": exponent(tuple(side**2 for side in SIDES), list(over_n.values())),
        },
    }


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/pipeline.json"))
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = create_model("timesformer", num_classes=10, embed_dim=192, depth=4, num_heads=3).train()
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder), options.videos)
        data = ClipDataset(open_dataset(folder), Preprocess())
        loading = {str(workers): feed(data, workers, options.batch, None) for workers in WORKERS}
        feeding = {str(workers): feed(data, workers, options.batch, model) for workers in WORKERS}
    grown = growth(options.rounds)
    best = min(feeding.values(), key=lambda row: row["waiting_share"])
    result = {
        "command": f"python -m benchmarks.pipeline --videos {options.videos} --out {options.out}",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch", "av"),
        "loading": loading,
        "feeding": feeding,
        **grown,
        "reading": "Clips of 8 x 224 from H.264 files, one decoding thread a worker: "
        + ", ".join(
            f"{workers} workers {row['clips_per_second']} clips/s"
            for workers, row in loading.items()
        )
        + ". Feeding a training step of a TimeSformer of width 192 with four blocks, the least "
        "share "
        f"of time spent waiting is {best['waiting_share']:.1%}. Wall time on a machine with load "
        f"{machine()['load_1min']} on two cores, so rates are low and noisy. A forward grows with "
        "T "
        f"to the power {grown['exponents']['over_T']} and with N to the power "
        f"{grown['exponents']['over_N']} (processor time).",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print(f"growth exponents: T {grown['exponents']['over_T']}, N {grown['exponents']['over_N']}")


if __name__ == "__main__":
    main()
