"""Read frame-level YouTube-8M records: Marey against the PyPI package `tfrecord`, in turns in one
run.

    python -m benchmarks.youtube8m_reading [--videos 100] [--rounds 7] [--out
    results/gat_reading.json]

Both readers get the same file of videos with 120 to 300 seconds of 1,024 + 128 bytes and hand over
uint8 arrays (T, 1024) and (T, 128), the labels and the id. Marey verifies both checksums of a
record; `tfrecord` verifies none. The "reading" in the file is written by hand.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interleave import interleave, machine
from benchmarks.written_result import write_result
from marey.datasets.youtube8m import FrameExample, read_examples, write_examples


def make_shard(path: Path, videos: int) -> Path:
    """Write videos of random features; the length of a video is drawn from 120 to 300 seconds, as
    in the data set."""
    generator = np.random.default_rng(0)
    write_examples(
        path,
        (
            FrameExample(
                id=f"{number:04d}",
                labels=(number % 3862,),
                features={
                    "rgb": generator.integers(0, 256, (seconds, 1024), dtype=np.uint8),
                    "audio": generator.integers(0, 256, (seconds, 128), dtype=np.uint8),
                },
            )
            for number in range(videos)
            for seconds in [int(generator.integers(120, 301))]
        ),
    )
    return path


def contestants(path: str) -> dict[str, Callable[[], int]]:
    """Reader name -> function that reads the whole file into arrays and returns the sum of a few
    bytes."""
    from tfrecord.reader import sequence_loader

    def marey() -> int:
        return sum(
            int(one.features["rgb"][-1, -1]) + int(one.features["audio"][-1, -1]) + one.labels[0]
            for one in read_examples(path)
        )

    def tfrecord() -> int:
        total = 0
        for context, lists in sequence_loader(
            path, None, {"id": "byte", "labels": "int"}, {"rgb": "byte", "audio": "byte"}
        ):
            rgb, audio = (
                np.stack([np.frombuffer(frame, np.uint8) for frame in lists[key]])
                for key in ("rgb", "audio")
            )
            total += int(rgb[-1, -1]) + int(audio[-1, -1]) + int(context["labels"][0])
        return total

    return {"marey": marey, "tfrecord": tfrecord}


def main() -> None:
    """Run the comparison and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = make_shard(Path(folder) / "train0000.tfrecord", options.videos)
        readers = contestants(str(path))
        answers = {name: read() for name, read in readers.items()}
        assert len(set(answers.values())) == 1, answers
        megabytes = path.stat().st_size / 1e6
        timed = interleave(readers, options.rounds)
    result: dict[str, Any] = summary(timed, megabytes, options.videos)
    result |= {
        "command": f"python -m benchmarks.youtube8m_reading --videos {options.videos} --rounds "
        f"{options.rounds}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        write_result(options.out, result)


def summary(timed: dict[str, Any], megabytes: float, videos: int) -> dict[str, Any]:
    """Put throughput beside the times."""
    rates = {name: round(megabytes / seconds, 1) for name, seconds in timed["seconds"].items()}
    return {
        **timed,
        "file_megabytes": round(megabytes, 1),
        "videos": videos,
        "megabytes_per_second": rates,
        "goal": "at least 3 times the speed of the package tfrecord",
    }


if __name__ == "__main__":
    main()
