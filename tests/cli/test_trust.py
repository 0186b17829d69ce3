"""`marey trust`: the page, the JSON and the card's table of one command; mistakes cost one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from marey.cli import run
from marey.video.encode import write_video


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Known videos that are bright or dark, and grey ones."""
    root = tmp_path_factory.mktemp("trust")
    for name, level in (("known/bright", 230), ("known/dark", 20), ("other/grey", 128)):
        (root / name).mkdir(parents=True)
        for number in range(2):
            frames = torch.full((12, 3, 32, 32), level + number, dtype=torch.uint8)
            write_video(root / name / f"{number}.mp4", frames, fps=10)
    return root


def test_one_command_writes_page_numbers_and_table(
    tiny_checkpoint: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "report"
    arguments = ["trust", str(tiny_checkpoint), "--data", str(folders / "known"), "--views", "1"]
    arguments += ["--far", str(folders / "other"), "--corruptions", "brightness"]
    assert run([*arguments, "--severities", "5", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((out / "report.json").read_text())
    assert printed["known"] == stored["known"]
    assert stored["known"]["accuracy"] == 1.0
    assert stored["known"]["set"] is None
    assert stored["far"]["num_videos"] == 2
    assert set(stored["far"]["scores"]) == {"max_probability", "energy"}
    assert stored["corruptions"][0]["severity"] == 5
    assert stored["near"] is None
    assert stored["command"].startswith("marey")
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert "| known videos | 4 |" in (out / "card.md").read_text()


def test_videos_of_other_classes_count_as_near_and_unreadable_ones_are_named(
    tiny_checkpoint: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(folders / "known", data)
    shutil.copytree(folders / "other" / "grey", data / "grey")
    (data / "dark" / "broken.mp4").write_bytes(b"no video")
    out = str(tmp_path / "report")
    arguments = ["trust", str(tiny_checkpoint), "--data", str(data), "--corruptions", "none"]
    assert run([*arguments, "--out", out, "--views", "1"]) == 1
    error = capsys.readouterr().err
    assert "broken.mp4" in error
    assert "near (2 videos, other actions)" in error


def test_mistakes_cost_one_line(
    tiny_checkpoint: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    known, other = str(folders / "known"), str(folders / "other")
    for data, extra, message in (
        (known, ["--corruptions", "smudge"], "smudge"),
        (known, ["--severities", "9"], "severity"),
        (other, ["--corruptions", "none"], "--near"),
    ):
        arguments = ["trust", str(tiny_checkpoint), "--data", data, "--out", str(tmp_path), *extra]
        assert run(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
