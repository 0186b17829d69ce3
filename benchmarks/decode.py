"""Decode 8 of 240 frames of H.264: Marey against decord and torchcodec, in turns in one run.

    python -m benchmarks.decode [--rounds 15] [--out results/decode.json] [--video FILE ...]

The videos are made on the spot: x264 as people use it (preset medium: B-frames in a pyramid, 3
references, key frame every 250), moving texture with grain. Every turn opens the file, decodes 8
equidistant frames to RGB and closes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.interleave import interleave, machine
from marey.video.decode import open_video

NUM_FRAMES, NUM_WANTED = 240, 8
SIZES = {"240p": (240, 426), "360p": (360, 640), "720p": (720, 1280)}


def make_video(path: Path, height: int, width: int) -> Path:
    """Write 240 frames of drifting texture, a moving block and grain."""
    random = np.random.default_rng(0)
    texture = random.normal(size=(height // 8 + 40, width // 8 + 40))
    texture = np.kron(texture, np.ones((8, 8))) * 18 + 120
    grain = random.normal(size=(8, height, width)) * 2.5
    with av.open(str(path), "w") as out:
        stream = out.add_stream(
            "libx264",
            rate=30,
            options={"preset": "medium", "crf": "23", "x264-params": "keyint=250"},
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(NUM_FRAMES):
            y, x = int(60 + 50 * np.sin(i / 23)), i
            grey = texture[y : y + height, x : x + width] + grain[i % 8]
            top, left = (
                int(height * (0.3 + 0.2 * np.sin(i / 9))),
                int(width * (0.4 + 0.3 * np.cos(i / 15))),
            )
            grey[top : top + height // 5, left : left + width // 8] += 60 * np.sin(i / 5)
            luma = grey.clip(16, 235).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(
                np.stack([luma, luma[::-1], np.roll(luma, 40, 1)], -1), format="rgb24"
            )
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def contestants(path: str, indices: list[int], threads: int) -> dict[str, Callable[[], np.ndarray]]:
    """Reader name -> function that opens the file and returns (8, H, W, 3) uint8."""

    def marey() -> np.ndarray:
        with open_video(path, threads=threads) as reader:
            return reader.frames_at(indices).frames.permute(0, 2, 3, 1).numpy()

    found: dict[str, Callable[[], np.ndarray]] = {"marey": marey}
    try:
        import decord

        found["decord"] = lambda: (
            decord.VideoReader(path, num_threads=threads).get_batch(indices).asnumpy()
        )
    except (ImportError, OSError) as error:
        print(f"decord is left out: {error}", file=sys.stderr)
    try:
        from torchcodec.decoders import VideoDecoder

        def torchcodec(mode: str) -> Callable[[], np.ndarray]:
            return lambda: (
                VideoDecoder(
                    path, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode=mode
                )
                .get_frames_at(indices)
                .data.numpy()
            )

        found["torchcodec"], found["torchcodec approximate"] = (
            torchcodec("exact"),
            torchcodec("approximate"),
        )
    except (ImportError, OSError, RuntimeError) as error:
        print(f"torchcodec is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def compare(path: str, threads: int, rounds: int) -> dict[str, Any]:
    """Time every reader on one file in turns, and compare the pixels they return with ours."""
    with open_video(path) as reader:
        L = reader.num_frames
        facts = {"frames": L, "width": reader.width, "height": reader.height}
    indices = [round(i * (L - 1) / (NUM_WANTED - 1)) for i in range(NUM_WANTED)]
    readers = contestants(path, indices, threads)
    ours = readers["marey"]().astype(int)
    difference = {}
    for name, read in readers.items():
        gap = np.abs(read().astype(int) - ours)
        difference[name] = {
            "max": int(gap.max()),
            "mean": round(float(gap.mean()), 4),
            "identical": bool((gap == 0).all()),
        }
    return {
        **facts,
        "wanted": indices,
        "threads": threads,
        "pixels_against_ours": difference,
        **interleave(readers, rounds),
    }


def main() -> None:
    """Run every size and thread count, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--video", nargs="*", default=[], help="measure on these files too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {
            name: str(make_video(Path(folder) / f"{name}.mp4", *SIZES[name]))
            for name in options.sizes
        }
        files.update({Path(video).name: video for video in options.video})
        for name, path in files.items():
            for threads in options.threads:
                result = compare(path, threads, options.rounds)
                results[f"{name}, {threads} thread{'s' * (threads > 1)}"] = result
                print(
                    f"{name} ({result['width']} x {result['height']}), {threads} thread(s): marey "
                    f"{result['seconds']['marey'] * 1000:.1f} ms; times as long (processor time): "
                    + ", ".join(
                        f"{other} {ratio:.2f} ({result['cpu_ratios'][other]:.2f})"
                        for other, ratio in result["paired_ratios"].items()
                        if other != "marey"
                    ),
                    flush=True,
                )
    if options.out:
        report = {
            "command": f"python -m benchmarks.decode --rounds {options.rounds} --out {options.out}",
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine("av", "decord", "torchcodec", "torch"),
            "results": results,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
