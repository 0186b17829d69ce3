"""Frames per second of every corruption at 224 x 224, beside the PyPI package `imagecorruptions`,
in one run.

    python -m benchmarks.corruptions --peer-python PEER/bin/python --out
    results/corruptions_benchmark.json

The peer needs an environment of its own: python -m venv PEER; PEER/bin/pip install "setuptools<70"
"numpy<1.25" "scikit-image==0.19.3" "scipy<1.11" "opencv-python-headless<4.9" pillow; PEER/bin/pip
install --no-deps imagecorruptions. It runs in a process beside ours and answers through a pipe;
ours and the peer's turns alternate, one thread each, so that a busy machine slows both. The time of
a turn is the process's own CPU time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import cv2, numpy as np
cv2.setNumThreads(1)
from imagecorruptions import corrupt
frames = np.load(sys.argv[1])
for line in sys.stdin:
    kind, severity, count = json.loads(line)
    start = time.process_time()
    for i in range(count):
        corrupt(frames[i % len(frames)], severity, kind)
    print(json.dumps(time.process_time() - start), flush=True)
"""
SHARED = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "gaussian_blur",
    "jpeg_compression",
    "contrast",
    "brightness",
    "saturate",
    "pixelate",
    "fog",
)
FRAMES = 16
"""Frames of the clip, as a model sees it."""


def textured_frames() -> object:
    """Frames with smooth shading, edges and grain, uint8 (16, 224, 224, 3)."""
    import numpy as np

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224]
    frames = []
    for t in range(FRAMES):
        base = np.stack([x * 0.8 + t, y * 0.9, (x + y) * 0.5 + 2 * t], -1)
        base[60:150, 40 + 3 * t : 120 + 3 * t] += 70
        frames.append(np.clip(base + rng.normal(0, 6, base.shape), 0, 255))
    return np.stack(frames).astype(np.uint8)


def main() -> None:
    """Alternate ours and the peer's turns and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peer-python", required=True, help="Python of the environment with imagecorruptions"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each, per kind and severity"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    import numpy as np
    import torch

    import marey

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    frames = textured_frames()
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npy"
        np.save(path, frames)
        peer = subprocess.Popen(
            [options.peer_python, "-c", PEER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def theirs(kind: str, severity: int, count: int) -> float:
            assert peer.stdin is not None
            assert peer.stdout is not None
            peer.stdin.write(json.dumps([kind, severity, count]) + "\n")
            peer.stdin.flush()
            return float(json.loads(peer.stdout.readline())) / count

        def ours(kind: str, severity: int) -> float:
            generator = torch.Generator().manual_seed(0)
            start = time.process_time()
            marey.corrupt(clip, kind, severity, generator=generator, profile="imagenet-c")
            return (time.process_time() - start) / FRAMES

        rows = {}
        for kind in SHARED:
            by_severity = []
            for severity in range(1, 6):
                ours(kind, severity)
                theirs(kind, severity, 2)
                count = 4 if kind == "zoom_blur" else FRAMES
                turns = [
                    (theirs(kind, severity, count), ours(kind, severity))
                    for _ in range(options.rounds)
                ]
                by_severity.append(
                    (statistics.median(t for t, _ in turns), statistics.median(o for _, o in turns))
                )
            peer_seconds = sum(t for t, _ in by_severity)
            our_seconds = sum(o for _, o in by_severity)
            rows[kind] = {
                "marey_frames_per_second": round(5 / our_seconds, 1),
                "peer_frames_per_second": round(5 / peer_seconds, 1),
                "ratio": round(peer_seconds / our_seconds, 2),
                "ratio_by_severity": [round(t / o, 2) for t, o in by_severity],
            }
            row = rows[kind]
            print(
                f"{kind:18s} {row['marey_frames_per_second']:9.1f} "
                f"{row['peer_frames_per_second']:9.1f} frames/s  "
                f"x{row['ratio']}",
                file=sys.stderr,
                flush=True,
            )
        assert peer.stdin is not None
        peer.stdin.close()
        peer.wait()
    mean = math.exp(statistics.mean(math.log(row["ratio"]) for row in rows.values()))
    slowest = min(rows, key=lambda kind: rows[kind]["ratio"])
    result = {
        "command": "python -m benchmarks.corruptions --peer-python PEER/bin/python --rounds "
        f"{options.rounds} --out results/corruptions_benchmark.json",
        "date": datetime.now(UTC).date().isoformat(),
        "peer": "imagecorruptions 1.1.2 (PyPI)",
        "unit": "frames per second of CPU time, 224 x 224, one thread each, 16-frame clip, "
        "profile imagenet-c",
        "kinds": rows,
        "geometric_mean_ratio": round(mean, 2),
        "slowest_kind": {"kind": slowest, "ratio": rows[slowest]["ratio"]},
        "goal": {"geometric_mean": 5.0, "slowest": 1.0},
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
