"""Damaged inputs are read, or refused by name: a small version of the campaign, and what it
found."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks.reliability import CAMPAIGNS, TINY, mutated, outcome_of, sources
from marey.checkpoints.folder import load_folder, save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.pickled import read_pickled
from marey.cli import run
from marey.datasets.open import open_dataset
from marey.errors import UserError
from marey.features.sound import decode_sound
from marey.files import FolderLock, weights_digest
from marey.models import create_model
from marey.training.config import TrainConfig, override
from marey.video.decode import open_video
from marey.video.live import is_live, iterate_live


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undamaged files of every kind."""
    return sources(tmp_path_factory.mktemp("reliability"))


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_damage_is_read_or_refused_by_name(name: str, whole: Path, tmp_path: Path) -> None:
    found = [
        outcome_of(CAMPAIGNS[name], whole, tmp_path, name, seed)
        for seed in range(4 if name == "live" else 12)
    ]
    assert [entry for entry in found if entry["outcome"] not in ("ok", "named")] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_more_damage_is_read_or_refused_by_name(name: str, whole: Path, tmp_path: Path) -> None:
    found = [outcome_of(CAMPAIGNS[name], whole, tmp_path, name, seed) for seed in range(12, 150)]
    assert [entry for entry in found if entry["outcome"] not in ("ok", "named")] == []
    assert Counter(entry["outcome"] for entry in found)["ok"] < 138, "nothing was damaged"


def test_the_same_case_has_the_same_damage() -> None:
    data = bytes(range(256)) * 4
    assert mutated(data, random.Random("a/1")) == mutated(data, random.Random("a/1"))
    assert mutated(data, random.Random("a/1")) != mutated(data, random.Random("a/2"))


def test_a_stream_that_begins_late_stops_nothing(shared_dir: Path) -> None:
    with open_video(shared_dir / "reliability" / "find_1027.ts") as reader:
        assert sum(len(clip.frames) for clip in reader.iterate()) == reader.num_frames > 1


@pytest.mark.parametrize("name", ["handler_latin1.mp4", "sound_156.mp4", "sound_129.mp3"])
def test_names_in_another_encoding_and_a_changing_track_give_sound(
    name: str, shared_dir: Path
) -> None:
    decode_sound(shared_dir / "reliability" / name)


@pytest.mark.parametrize("name", ["live_252.mkv", "handler_latin1.mp4", "find_1027.ts"])
def test_damaged_streams_are_watched_in_order_of_time(name: str, shared_dir: Path) -> None:
    path = str(shared_dir / "reliability" / name)
    seconds = [second for second, _ in iterate_live(path, idle_seconds=0.05)]
    assert len(seconds) > 1
    assert seconds == sorted(seconds)


def test_a_clock_that_starts_again_goes_on_and_is_said(whole: Path, tmp_path: Path) -> None:
    data = (whole / "h264.ts").read_bytes()
    (tmp_path / "twice.ts").write_bytes(data + data)
    said: list[str] = []
    frames = list(iterate_live(str(tmp_path / "twice.ts"), idle_seconds=0.05, notice=said.append))
    seconds = [second for second, _ in frames]
    assert len(frames) == 32
    assert seconds == sorted(seconds)
    assert 3.5 < seconds[-1] < 4.5
    assert any("clock jumped" in line for line in said)


def test_a_file_in_shared_memory_is_no_camera(whole: Path) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("no /dev/shm here")
    path = shared / f"marey-test-{os.getpid()}.ts"
    try:
        shutil.copy(whole / "h264.ts", path)
        assert not is_live(str(path))
    finally:
        path.unlink(missing_ok=True)


def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model("timesformer", **TINY)


def test_sizes_that_the_weights_cannot_have_are_refused_before_anything_is_built(
    tmp_path: Path,
) -> None:
    save_checkpoint(tmp_path, tiny(), class_names=None, preprocess=None)
    config = json.loads((tmp_path / "config.json").read_text())
    for name, value in (("depth", 10**6), ("num_frames", 10**8)):
        broken = {**config, "arguments": {**config["arguments"], name: value}}
        (tmp_path / "config.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match=f"config.json: {name} is {value}"):
            load_folder(tmp_path)


def test_weights_of_another_model_and_nan_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a", tiny(), class_names=None, preprocess=None)
    other = tiny()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    save_checkpoint(tmp_path / "b", other, class_names=None, preprocess=None)

    # A kill between the two renames: the weights bring their own configuration.
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "model.safetensors")
    assert weights_digest(load_folder(tmp_path / "a").model.state_dict()) == weights_digest(
        other.state_dict()
    )
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    data = bytearray((tmp_path / "a" / "model.safetensors").read_bytes())
    data[-1] ^= 0x40
    (tmp_path / "a" / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(UserError, match="not the weights that config.json was written with"):
        load_folder(tmp_path / "a")
    assert "weights_digest" in config

    with torch.no_grad():
        next(other.parameters())[0] = torch.nan
    save_checkpoint(tmp_path / "c", other, class_names=None, preprocess=None)
    with pytest.raises(UserError, match="holds NaN or infinite values"):
        load_checkpoint(tmp_path / "c")


def test_an_empty_file_of_weights_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    with pytest.raises(UserError, match=r"a.pth: 0 bytes are no file of weights"):
        read_pickled(tmp_path / "a.pth")


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run")
    with pytest.raises(UserError, match="another process is writing there"):
        FolderLock(tmp_path / "run")
    lock.close()
    FolderLock(tmp_path / "run").close()
    assert list((tmp_path / "run").iterdir()) == []


def test_settings_nested_without_end_are_one_line() -> None:
    with pytest.raises(UserError):
        override(TrainConfig(), ["model.arguments=" + "[" * 100_000])


def test_a_file_whose_name_is_no_utf_8_is_read_and_written(whole: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        try:
            shutil.copy(whole / "h264.mp4", tmp_path / label / name)
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    words = ["data", "split", str(tmp_path), "--val", "0.5", "--test", "0", "--no-pictures"]
    assert run(words) == 0
    assert {sample.path.name for sample in open_dataset(tmp_path).samples} == {name}
    assert run(["data", "check", str(tmp_path), "--json"]) in (0, 1)


WRITE = """
import os, signal, sys
from pathlib import Path
from marey import files

kill_at, folder = int(sys.argv[1]), Path(sys.argv[2])
calls, replace = [0], os.replace

def counted(source, target):
    if calls[0] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    calls[0] += 1
    replace(source, target)

os.replace = counted
with files.atomic_files(folder / "a", folder / "b", folder / "c") as parts:
    for part in parts:
        part.write_text("new")
"""


@pytest.mark.slow
def test_a_kill_at_any_rename_leaves_every_file_whole(tmp_path: Path) -> None:
    for kill_at in range(4):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        for name in "abc":
            (folder / name).write_text("old")
        done = subprocess.run([sys.executable, "-c", WRITE, str(kill_at), str(folder)])
        assert done.returncode == (0 if kill_at == 3 else -signal.SIGKILL)
        texts = [(folder / name).read_text() for name in "abc"]
        assert texts == ["new"] * kill_at + ["old"] * (3 - kill_at)
