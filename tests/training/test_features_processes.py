from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.synthetic.youtube8m import render_youtube8m_mini

SETTINGS = [
    "train.max_steps=2",
    "train.batch_size=4",
    "train.eval_every=2",
    "train.log_every=1",
    "train.device=cpu",
    "model.arguments.dropout=0.0",
    "objective.weights.adversarial=1",
    "objective.weights.attention=0.01",
    "objective.adversarial.distance=js",
]


def logged(folder: Path, processes: int, data: Path) -> list[dict]:
    launch = (
        []
        if processes == 1
        else [
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={processes}",
            f"--master-port={21000 + os.getpid() % 20000}",
        ]
    )
    command = [
        sys.executable,
        *launch,
        "-m",
        "marey",
        "train",
        "gat_youtube8m_mini",
        "--data",
        str(data),
        "--out",
        str(folder),
        *(word for setting in SETTINGS for word in ("--set", setting)),
    ]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_adversarially_as_one(tmp_path):
    data = render_youtube8m_mini(tmp_path / "data", videos={"train": 8, "validate": 5}, shards=1)
    one, two = logged(tmp_path / "one", 1, data), logged(tmp_path / "two", 2, data)
    assert two[-1]["processes"] == 2
    for mine, theirs in zip(one, two, strict=True):
        for key in {"class", "adversarial", "attention", "gap", "map"} & mine.keys():
            assert theirs[key] == pytest.approx(mine[key], abs=2e-4), (mine["step"], key)
