"""Two processes with the same global batch have the losses of one: order, adversarial and detection
recipes, FSDP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.io import write_jpeg

from marey.checkpoints.load import load_checkpoint
from marey.training.loop import train


def write_scenes(root: Path) -> None:
    """Eight scenes of one bright box each, all in the training split, in AVA's layout."""
    rows, listing = [], ["video,split,fps,key_frame,num_frames"]
    for i in range(8):
        folder = root / "frames" / f"s{i}"
        folder.mkdir(parents=True)
        frame = torch.zeros(3, 32, 32, dtype=torch.uint8)
        frame[:, 8:24, 4 + i : 12 + i] = 255
        for t in range(8):
            write_jpeg(frame, str(folder / f"s{i}_{t + 1:06d}.jpg"), quality=95)
        rows.append(f"s{i},0902,{(4 + i) / 32},0.25,{(12 + i) / 32},0.75,{i % 2 + 1},0")
        listing.append(f"s{i},train,4.0,4,8")
    (root / "scenes.csv").write_text("\n".join(listing) + "\n")
    (root / "ava_action_list.pbtxt").write_text(
        'item {\n  name: "a"\n  id: 1\n}\nitem {\n  name: "b"\n  id: 2\n}\n'
    )
    (root / "ava_train.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs by two gloo processes, with the data they read."""
    folder = tmp_path_factory.mktemp("processes")
    write_scenes(folder / "scenes")
    here = Path(__file__).parent
    path = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": path,
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={20000 + os.getpid() % 20000 + 7}",
        str(here / "toy_processes.py"),
        str(folder),
        str(folder / "two"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", ["order", "adversarial", "detection", "sharded"])
def test_two_processes_have_the_losses_of_one(two_processes: Path, name: str) -> None:
    from toy_processes import RUNS

    config, task = RUNS[name](two_processes)
    train(config, two_processes / "one" / name, task=task, quiet=True)
    one, two = (
        [
            json.loads(line)
            for line in (two_processes / kind / name / "log.jsonl").read_text().splitlines()
        ]
        for kind in ("one", "two")
    )
    assert (one[-1]["processes"], two[-1]["processes"]) == (1, 2)
    steps = [
        (mine, theirs) for mine, theirs in zip(one, two, strict=True) if mine["kind"] == "train"
    ]
    assert len(steps) >= 3
    for mine, theirs in steps:
        terms = {key for key, value in mine.items() if isinstance(value, float)} - {
            "clips_per_second",
            "waiting_share",
            "seconds",
            "time",
        }
        assert "loss" in terms
        for key in terms:
            assert theirs[key] == pytest.approx(mine[key], rel=2e-4, abs=2e-5), (mine["step"], key)
    assert steps[0][0]["loss"] != pytest.approx(steps[-1][0]["loss"], rel=1e-4)


def test_a_sharded_run_saves_the_weights_of_a_whole_one(two_processes: Path) -> None:
    one, two = (
        load_checkpoint(two_processes / kind / "sharded" / "last").model.state_dict()
        for kind in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)


def test_a_sharded_run_has_no_resume_state(two_processes: Path) -> None:
    folder = two_processes / "two" / "sharded"
    assert (folder / "best").is_dir()
    assert not (folder / "resume.safetensors").exists()
