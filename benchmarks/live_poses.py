"""How fast `marey watch` follows and names people: frames a second, and seconds from a frame to the
answer that rests on it.

    python -m benchmarks.live_poses ../shared/clips/VIDEO... --model MODEL \
        --out results/live_poses.json

Each video is played as a camera would give it, in real time and from the start again where it ends;
frames that come while the program is busy are dropped, as `marey watch` does with a camera. One
computing thread. Frames per core-second are frames in which people were looked for, over the
processor time of everything together: decoding, poses, tracks, answers; latency in core-seconds is
the processor time of everything from a frame's arrival to the answer. Both depend less than the
latency by the clock on what else the machine is doing (its load is in the file).
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.interleave import machine
from marey.checkpoints.load import load_checkpoint
from marey.files import write_json
from marey.inference.live import WATCH_FPS, watch
from marey.inference.poses import PosePredictor
from marey.persons.sources import pose_finder
from marey.video.decode import open_video
from marey.video.live import iterate_live, newest

GOALS = {"frames_per_core_second": 8.0, "latency_seconds": 0.5}


def camera(
    video: Path, seconds: float, arrived: dict[float, tuple[float, float]]
) -> Iterator[tuple[float, Tensor]]:
    """Give the frames of a video in real time for so many seconds, and note when each came."""
    begin, offset = time.monotonic(), 0.0
    while True:
        last = 0.0
        for second, frame in iterate_live(str(video), idle_seconds=0):
            due = offset + second
            if due > seconds:
                return
            time.sleep(max(0.0, begin + due - time.monotonic()))
            arrived[due] = time.monotonic(), time.process_time()
            yield due, frame
            last = second
        offset += last + 0.04


def measure(predictor: PosePredictor, video: Path, seconds: float) -> dict[str, Any]:
    """Watch one video and return rates and latencies."""
    looks = []
    look = predictor.finder.look

    def counted(*given: Any) -> Any:
        looks.append(time.monotonic())
        return look(*given)

    predictor.finder.look = counted  # type: ignore[method-assign]
    arrived: dict[float, tuple[float, float]] = {}
    latencies, core_latencies, people = [], [], []
    wall, processor = time.monotonic(), time.process_time()
    for answer in watch(predictor, newest(camera(video, seconds, arrived))):
        came = min(arrived, key=lambda due: abs(due - answer["seconds"]))
        latencies.append(time.monotonic() - arrived[came][0])
        core_latencies.append(time.process_time() - arrived[came][1])
        people.append(len(answer["persons"]))
    wall, processor = time.monotonic() - wall, time.process_time() - processor
    predictor.finder.look = look  # type: ignore[method-assign]
    with open_video(video) as reader:
        size = [reader.width, reader.height]
    return {
        "video": video.name,
        "width_height": size,
        "seconds": round(wall, 2),
        "answers": len(latencies),
        "mean_people": round(float(np.mean(people)), 2),
        "frames_looked_at_per_second": round(len(looks) / wall, 2),
        "frames_per_core_second": round(len(looks) / processor, 2),
        "processor_share": round(processor / wall, 3),
        "latency_core_seconds": {
            "median": round(float(np.median(core_latencies)), 3),
            "p95": round(float(np.quantile(core_latencies, 0.95)), 3),
        },
        "latency_seconds": {
            "median": round(float(np.median(latencies)), 3),
            "p95": round(float(np.quantile(latencies, 0.95)), 3),
            "max": round(max(latencies), 3),
        },
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--persons", default="auto")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)

    predictor = PosePredictor(
        load_checkpoint(given.model), finder=pose_finder(given.persons, threads=1)
    )
    rows = []
    for video in given.videos:
        load = os.getloadavg()[0]
        row = {"load_average_before": round(load, 2), **measure(predictor, video, given.seconds)}
        print(row, flush=True)
        rows.append(row)
    if given.out is not None:
        write_json(
            given.out,
            {
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "command": "python -m benchmarks.live_poses "
                + " ".join(f"../shared/clips/{video.name}" for video in given.videos),
                "model": given.model,
                "persons": given.persons,
                "frames_a_second_at_most": WATCH_FPS,
                "goals": GOALS,
                "videos": rows,
            },
        )


if __name__ == "__main__":
    main()
