"""Twenty kills of a training at random moments, and a full disk under every command that writes.

    python -m benchmarks.accidents --out results/accidents.json

A killed training is gone on with until it is done; its weights must equal, byte for byte, those of
a training that nobody touched. The full disk is a tmpfs of 64 kB without a free byte, so this needs
Linux and root; without them its part is left out, and the file says so.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.interleave import machine
from marey.files import write_json

EXAMPLES = Path(__file__).parents[1] / "examples"

TRAINING = (
    "train",
    "mini_pose",
    "--set",
    "train.max_steps=40",
    "--set",
    "train.eval_every=10",
    "--set",
    "train.save_every=4",
    "--set",
    "train.batch_size=8",
    "--set",
    "train.calibrate=false",
    "--set",
    'objective.weights={"class": 1.0}',
    "--set",
    "objective.start={}",
)
"""Four evaluations, ten resume states, and everything else that a training writes."""


def marey(words: Sequence[str], **settings: Any) -> subprocess.Popen[str]:
    """Start a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "marey", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def done(words: Sequence[str]) -> tuple[int, str]:
    """Run a command: status, and what it said on stderr."""
    process = marey(words)
    error = process.communicate(timeout=600)[1]
    return process.returncode, error


def weights_of(run: Path) -> dict[str, bytes]:
    """Return the bytes of the weights of a run."""
    return {name: (run / name / "model.safetensors").read_bytes() for name in ("best", "last")}


def pose_training(cmu: str, folder: Path) -> list[str]:
    """Render what is trained on; returns the command line of the training."""
    windows = str(folder / "windows")
    render = ["data", "render", "poses", "--cmu", cmu, "--out", windows, "--windows", "240"]
    code, error = done(render)
    if code:
        raise SystemExit(error)
    return [*TRAINING, "--data", windows]


def kill_trainings(
    kills: int, prepare: Callable[[Path], list[str]], seed: int = 0
) -> dict[str, Any]:
    """Kill trainings at random moments, and compare what comes out in the end.

    Args:
        prepare: given a folder, returns the command line of a training, without `--out`.
    """
    draw = random.Random(seed)
    moments: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        words = prepare(folder)
        begin = time.monotonic()
        code, error = done([*words, "--out", str(folder / "whole")])
        if code:
            raise SystemExit(error)
        length = time.monotonic() - begin
        whole = weights_of(folder / "whole")
        cut, runs, same, errors = folder / "run0", 0, [], []
        while len(moments) < kills:
            seconds = draw.uniform(0.2, 1.0) * length
            process = marey([*words, "--out", str(cut), "--resume"], start_new_session=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, error = process.communicate(timeout=seconds)
                if process.returncode:
                    errors.append(error.strip().splitlines()[-1])
                # done before the kill: the next run is a new one
                same.append(weights_of(cut) == whole)
                runs += 1
                cut = folder / f"run{runs}"
                continue
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            moments.append({"seconds": round(seconds, 2), "run": runs})
        code, error = done([*words, "--out", str(cut), "--resume"])
        errors += [error] if code else []
        same.append(weights_of(cut) == whole)
        left = [path.name for path in folder.rglob("*.partial*")]
    return {
        "kills": len(moments),
        "whole_run_seconds": round(length, 1),
        "trainings_finished": len(same),
        "weights_equal_to_the_uninterrupted": sum(same),
        "errors": errors,
        "partial_files_left": left,
        "moments": moments,
    }


def writing_commands(full: Path, scratch: Path) -> dict[str, list[str]]:
    """Return every command that writes, with its output on the full disk."""
    walk = str(EXAMPLES / "walk.mp4")
    data = scratch / "data"
    for name in ("walk", "cartwheel"):
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        for copy in range(2):
            (folder / f"{copy}.mp4").write_bytes((EXAMPLES / f"{name}.mp4").read_bytes())
    out = str(full / "out")
    small = ["--model", "marey-mini-rgb"]
    return {
        "predict --csv": ["predict", walk, *small, "--csv", f"{out}.csv"],
        "predict --timeline --srt": ["predict", walk, "--timeline", "--srt", f"{out}.srt"],
        "predict --contact-sheet": ["predict", walk, *small, "--contact-sheet", f"{out}.png"],
        "predict --save-annotated": ["predict", walk, *small, "--save-annotated", f"{out}.mp4"],
        "predict --sort-into": ["predict", walk, *small, "--sort-into", out],
        "pose --save-annotated": ["pose", walk, "--save-annotated", f"{out}.mp4"],
        "detect --save-annotated": ["detect", walk, "--save-annotated", f"{out}.mp4"],
        "detect --ava-csv": ["detect", walk, "--ava-csv", f"{out}.csv"],
        "order --out": ["order", walk, "--shuffle", "0", "--out", out],
        "explain --out": ["explain", walk, *small, "--out", out],
        "corrupt": ["corrupt", str(data), "--out", out, "--workers", "1"],
        "features": ["features", str(data), "--out", out],
        "data pack": ["data", "pack", str(data), "--out", out, "--workers", "1"],
        "data split": ["data", "split", str(data), "--out", f"{out}.csv"],
        "teach": ["teach", str(data), "--out", out],
        "evaluate": ["evaluate", "marey-mini-rgb", "--data", str(data), "--out", out],
        "export": ["export", "marey-mini-rgb", "--format", "torch-export", "--out", f"{out}.pt2"],
        "export onnx": ["export", "marey-mini-rgb", "--format", "onnx", "--out", f"{out}.onnx"],
    }


@contextlib.contextmanager
def full_disk(place: Path) -> Iterator[Path]:
    """Mount a disk of 64 kB without a free byte."""
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)],
        check=True,
        capture_output=True,
    )
    try:
        (place / "filler").write_bytes(bytes(64 * 1024))
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


def fill_disk(only: Sequence[str] | None = None) -> dict[str, Any]:
    """Run every writing command, or some of them, with its output on a full disk."""
    rows = {}
    with tempfile.TemporaryDirectory() as scratch, full_disk(Path(scratch) / "disk") as full:
        for name, words in writing_commands(full, Path(scratch)).items():
            if only is not None and name not in only:
                continue
            code, error = done(words)
            left = [path.name for path in full.rglob("*") if path.name != "filler"]
            lines = [line for line in error.splitlines() if line.strip()]
            rows[name] = {
                "status": code,
                "traceback": "Traceback" in error,
                "names_the_place": str(full) in error,
                "says_full": "the disk is full" in error or "are free; free" in error,
                "left_behind": left,
                "last_line": lines[-1].replace(scratch, "DISK") if lines else "",
            }
            for path in full.iterdir():
                if path.name != "filler":
                    subprocess.run(["rm", "-rf", str(path)], check=True)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cmu", default="../shared/data/cmu_mocap")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": "python -m benchmarks.accidents",
    }
    try:
        found["full_disk"] = fill_disk()
    except (OSError, subprocess.CalledProcessError) as error:
        found["full_disk"] = f"not run: {error}"
    print(found["full_disk"])
    found["kills"] = kill_trainings(given.kills, lambda folder: pose_training(given.cmu, folder))
    print(found["kills"])
    if given.out is not None:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
