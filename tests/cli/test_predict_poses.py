"""`marey predict` with a model of poses, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from marey.cli import run
from marey.video.decode import open_video
from marey.video.encode import write_video


def test_people_are_found_named_and_drawn_and_a_bad_file_is_named(
    tiny_pose_checkpoint: Path, walkers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "empty.mp4"
    bad.touch()
    model = ["--model", str(tiny_pose_checkpoint)]
    assert run(["predict", str(bad), str(walkers), *model, "--json"]) == 1
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)["results"]
    assert str(bad) in first["error"]
    assert captured.err.startswith(f"marey: {bad}")
    assert second["headline"].startswith("walk 9")
    assert second["predictions"][0]["label"] == "walk"
    assert len(second["persons"]) == 2
    assert second["trust"]["unknown"] is False

    pictures = {"--save-annotated": tmp_path / "a.mp4", "--contact-sheet": tmp_path / "c.png"}
    given = [str(part) for pair in pictures.items() for part in pair]
    assert run(["predict", str(walkers), *model, *given, "--csv", str(tmp_path / "p.csv")]) == 0
    shown = capsys.readouterr().out
    assert "person 1" in shown
    assert "100% of the windows agree" in shown
    assert (tmp_path / "p.csv").read_text().splitlines()[1].split(",")[2] == "walk"
    assert all(path.stat().st_size > 1000 for path in pictures.values())
    with open_video(tmp_path / "a.mp4") as drawn, open_video(walkers) as plain:
        assert drawn.num_frames == plain.num_frames


def test_nobody_is_the_answer_in_words_json_and_segments(
    tiny_pose_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty room.mp4"
    write_video(empty, torch.full((5, 3, 48, 64), 90, dtype=torch.uint8), fps=5)
    model = ["--model", str(tiny_pose_checkpoint)]
    assert run(["predict", str(empty), *model]) == 0
    shown = capsys.readouterr().out
    assert "NO PERSON: nobody was found" in shown
    assert "walk" not in shown

    subtitles, drawn = tmp_path / "t.srt", tmp_path / "t.mp4"
    out = ["--timeline", "--srt", str(subtitles), "--save-annotated", str(drawn), "--json"]
    assert run(["predict", str(empty), *model, *out]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [segment["label"] for segment in result["segments"]] == ["no person"]
    assert "no person" in subtitles.read_text()
    assert drawn.stat().st_size > 500
