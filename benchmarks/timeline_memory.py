"""Memory that `timeline` adds on a short and on a long video: it must not grow with the length.

    python -m benchmarks.timeline_memory --out results/timeline_memory.json [--minutes 2 25]

Each video is made on the spot (64 x 64, 5 frames/s, H.264) and answered by marey-mini-rgb in a
process of its own; memory is the peak of that process less what it held when the model was loaded
and had answered once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleave import machine
from benchmarks.training_step import status_megabytes

FPS = 5


def frames_of(minutes: float) -> Iterator[Tensor]:
    """Yield a bright square that wanders over noise, uint8 (1, 3, 64, 64) each."""
    ground = torch.randint(0, 60, (3, 64, 64), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    for place in range(round(minutes * 60 * FPS)):
        frame = ground.roll(place % 64, dims=2).clone()
        frame[
            :, (3 * place) % 48 : (3 * place) % 48 + 16, (5 * place) % 48 : (5 * place) % 48 + 16
        ] = 220
        yield frame[None]


def measure_once(path: str, step_seconds: float) -> dict[str, Any]:
    """Answer one video in this process."""
    from marey.inference.predictor import Predictor
    from marey.inference.timeline import iterate_windows
    from marey.video.decode import open_video

    torch.set_num_threads(1)
    predictor = Predictor.load("marey-mini-rgb")
    with open_video(path) as reader:
        windows = iterate_windows(predictor, reader, step_seconds=step_seconds)
        next(windows)
        before, start, count = status_megabytes("VmHWM"), time.process_time(), 1
        for _ in windows:
            count += 1
        return {
            "windows": count,
            "processor_seconds": round(time.process_time() - start, 2),
            "added_megabytes": round(status_megabytes("VmHWM") - before, 1),
            "megabytes": round(before, 1),
        }


def main() -> None:
    """Make the videos, measure each in its own process, write."""
    from marey.video.encode import write_video

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/timeline_memory.json"))
    parser.add_argument("--minutes", type=float, nargs=2, default=[2.0, 25.0])
    parser.add_argument(
        "--step", type=float, default=1.0, help="seconds between windows of two seconds"
    )
    parser.add_argument("--only", help="measure this video and print")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure_once(options.only, options.step)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            path = Path(folder) / f"{minutes:g}.mp4"
            write_video(path, frames_of(minutes), fps=FPS)
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.timeline_memory",
                    "--only",
                    str(path),
                    "--step",
                    str(options.step),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
            rows.append({"minutes": minutes, **json.loads(done.stdout)})
    short, long = rows
    growth = (long["added_megabytes"] - short["added_megabytes"]) / (
        short["megabytes"] + short["added_megabytes"]
    )
    result = {
        "command": f"python -m benchmarks.timeline_memory --minutes {short['minutes']:g} "
        f"{long['minutes']:g} "
        f"--step {options.step:g} --out {options.out}",
        "date": datetime.date.today().isoformat(),
        "machine": machine("torch", "av"),
        "videos": rows,
        "growth_share": round(growth, 4),
        "reading": f"{long['minutes']:g} minutes ({long['windows']} windows) take the process "
        f"{long['added_megabytes']} MB above what it held after the first batch, "
        f"{short['minutes']:g} "
        f"minutes {short['added_megabytes']} MB: {growth:.1%} of its peak for "
        f"{long['minutes'] / short['minutes']:.0f} times the length (the table of frame times "
        "grows, "
        "frames and answers do not stay). Low resolution and five frames a second.",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
