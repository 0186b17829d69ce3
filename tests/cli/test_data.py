"""`marey data`: exit statuses, JSON on stdout, words on stderr."""

from __future__ import annotations

import json

import pytest
import torch

from marey.cli import run
from marey.video.encode import write_video


@pytest.fixture
def folder(tmp_path):
    """Two classes of five small videos."""
    for k in range(10):
        frames = torch.randint(
            0, 256, (1, 3, 6, 6), generator=torch.Generator().manual_seed(k)
        ).float()
        frames = (
            torch.nn.functional.interpolate(frames, (48, 48), mode="bilinear")
            .clamp(0, 255)
            .to(torch.uint8)
        )
        write_video(
            tmp_path / "set" / ("run" if k < 5 else "jump") / f"{k}.mp4",
            torch.cat([frames.roll(2 * shift, 3) for shift in range(6)]),
            10,
        )
    return tmp_path / "set"


def test_a_clean_set_passes(folder, capsys):
    assert run(["data", "check", str(folder), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["num_videos"], report["readable"], report["errors"], report["findings"]) == (
        10,
        10,
        0,
        [],
    )
    assert "nothing to fix" in printed.err


def test_an_unreadable_video_is_named_and_the_status_is_1(folder, capsys):
    (folder / "run" / "bad.mp4").write_text("no")
    assert run(["data", "check", str(folder)]) == 1
    assert "unreadable     " + str(folder / "run" / "bad.mp4") in capsys.readouterr().out


def test_split_writes_a_manifest_once(folder, capsys):
    assert run(["data", "split", str(folder), "--val", "0.2", "--test", "0.2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["videos"] for row in report["splits"]] == [6, 2, 2]
    assert (folder / "manifest.csv").read_text().splitlines()[
        0
    ] == "path,label,split,group,start_seconds,end_seconds"
    assert run(["data", "split", str(folder)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_split_reports_a_video_on_both_sides(folder, capsys):
    for k in range(5, 10):
        (folder / "jump" / f"copy{k}.mp4").write_bytes((folder / "jump" / f"{k}.mp4").read_bytes())
    assert run(["data", "split", str(folder), "--val", "0.3", "--test", "0.3"]) == 0
    assert "leak: " in capsys.readouterr().err


def test_pack_writes_copies_and_goes_on(folder, tmp_path, capsys):
    assert (
        run(
            [
                "data",
                "pack",
                str(folder),
                "--out",
                str(tmp_path / "out"),
                "--short-side",
                "32",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["written"] == 10
    (folder / "run" / "bad.mp4").write_text("no")
    assert (
        run(["data", "pack", str(folder), "--out", str(tmp_path / "out"), "--short-side", "32"])
        == 1
    )
    error = capsys.readouterr().err
    assert "10 kept, 1 unreadable" in error
    assert "dB PSNR against the videos at the size of the copies (mean of 24 pictures)" in error
    assert "--model M counts them" in error


def test_pack_counts_the_answers_that_its_copies_change(tiny_checkpoint, tmp_path, capsys):
    for label, level in (("bright", 250), ("dark", 5)):
        frames = torch.full((8, 3, 48, 64), level, dtype=torch.uint8)
        frames[::2, :, :24] = 128
        write_video(tmp_path / "set" / label / "a.mp4", frames, 10)
    words = ["data", "pack", str(tmp_path / "set"), "--model", str(tiny_checkpoint), "--workers"]

    def cost(name, *more):
        assert run([*words, "1", "--out", str(tmp_path / name), "--json", *more]) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out)["cost"], printed.err

    fine, said = cost("fine", "--crf", "0")
    coarse, _ = cost("coarse", "--crf", "51", "--short-side", "16")
    assert "answers 0 of 2 videos differently from their copies" in said
    assert (fine["videos"], fine["changed"]) == (2, 0)
    assert fine["psnr_db"] > 45 > coarse["psnr_db"]
    assert fine["probability_moved"] < coarse["probability_moved"]


@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "/nowhere/at/all"],
        ["data", "split", "/nowhere/at/all"],
        ["data", "pack", "/nowhere/at/all", "--out", "/tmp"],
    ],
)
def test_a_folder_that_is_not_there_is_one_line_and_status_2(command, capsys):
    assert run(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "/nowhere/at/all" in error


def test_windows_of_keypoints_are_rendered_and_a_missing_folder_is_one_line(tmp_path, capsys):
    assert (
        run(["data", "render", "poses", "--cmu", str(tmp_path), "--out", str(tmp_path / "w")]) == 2
    )
    error = capsys.readouterr().err
    assert "joints_mm_60fps.npz: no such file" in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "w").exists()
