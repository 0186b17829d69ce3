"""What a person does wrong, or the machine, costs one line; what was done is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marey.cli import run, what_is_kept
from marey.datasets.index import read_folders
from marey.errors import UserError, VideoError
from marey.evaluation.report import compare_predictions
from marey.files import atomic, sweep_partial
from marey.inference.condition import STILL
from marey.training.config import TrainConfig
from marey.video.decode import open_video
from marey.video.encode import write_video


def noise(frames: int, seed: int = 0) -> torch.Tensor:
    """uint8 (T, 3, 48, 64), coarse noise that differs in every frame."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 255, (frames, 3, 6, 8), generator=generator).to(torch.uint8)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cuda"], "--device cuda cannot be used here"),
        (["--device", "gpu7"], "--device gpu7 cannot be used here"),
        (["--contact-sheet", "cs.xyz"], "cs.xyz: a picture ends in .png"),
        (["--srt", "a.srt"], "--srt without --timeline would have no effect"),
        (["--out", "o"], "--out without --engine ray would have no effect"),
        (["--timeline", "--labels", "a,b"], "--labels with --timeline would have no effect"),
        (["--features", "--csv", "a.csv"], "--csv with --features would have no effect"),
    ],
)
def test_a_mistake_in_an_option_is_named_before_any_work(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available() and "cuda" in words:
        pytest.skip("this machine has a GPU")
    assert run(["predict", "a.mp4", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("marey: ")
    assert message in error
    assert error.count("\n") == 1


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from marey import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"marey {__version__}\n"


def test_after_ctrl_c_one_line_says_what_is_kept_and_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert what_is_kept(["train", "mini", "--out", "my run"]).endswith(
        "go on with: marey train mini --out 'my run' --resume"
    )
    assert "answered are kept; go on with: marey evaluate m" in what_is_kept(["evaluate", "m"])
    assert "half-written" in what_is_kept(["predict", "a.mp4"])

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("marey.datasets.open.open_dataset", stop)
    assert run(["data", "check", "x"]) == 130
    assert "marey: interrupted" in capsys.readouterr().err


def test_one_still_picture_is_said_and_nothing_is_calibrated(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "one.mp4", noise(1), 10)
    write_video(tmp_path / "still.mp4", noise(1).repeat(12, 1, 1, 1), 10)
    write_video(tmp_path / "moving.mp4", noise(12), 10)
    files = [str(tmp_path / f"{name}.mp4") for name in ("one", "still", "moving")]
    table = tmp_path / "a.csv"
    words = ["predict", *files, "--model", str(tiny_checkpoint), "--csv", str(table)]
    assert run([*words, "--json"]) == 0
    one, still, moving = json.loads(capsys.readouterr().out)["results"]
    for entry in (one, still):
        assert entry["trust"]["still"]
        assert not entry["trust"]["calibrated"]
        assert entry["trust"]["not_calibrated"] == STILL
    assert moving["trust"]["calibrated"]
    assert "still" not in moving["trust"]
    assert table.read_text().splitlines()[1].split(",")[6] == "True"

    sorted_into = tmp_path / "sorted"
    assert (
        run(["predict", *files, "--model", str(tiny_checkpoint), "--sort-into", str(sorted_into)])
        == 0
    )
    out = capsys.readouterr().out
    assert f"STILL: {STILL}" in out
    assert "calibrated probability" in out.split("moving.mp4")[1]
    assert "(1 frame," in out
    assert {p.name for p in (sorted_into / "still").iterdir()} == {"one.mp4", "still.mp4"}
    assert len(list(sorted_into.rglob("moving.mp4"))) == 1


def test_a_file_cut_in_half_is_said_in_text_table_and_json(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "a.mkv"
    write_video(whole, noise(40), 10)
    half = tmp_path / "half.mkv"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    table = tmp_path / "a.csv"
    words = ["predict", str(half), "--model", str(tiny_checkpoint), "--csv", str(table)]
    assert run(words) == 0
    assert "DAMAGED: the file is cut short" in capsys.readouterr().out
    assert "the file is cut short" in table.read_text()
    assert run([*words, "--json"]) == 0
    trust = json.loads(capsys.readouterr().out)["results"][0]["trust"]
    assert "cut short" in trust["damaged"]
    assert not trust["calibrated"]


def test_a_file_that_may_not_be_read_is_one_bad_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("marey.video.packet_source.cut_short", refuse)
    with pytest.raises(VideoError, match=r"a.mp4: cannot be opened \(Permission denied\)"):
        open_video(path)


def test_a_run_among_the_data_is_no_class_and_hides_no_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_video(tmp_path / split / "a" / "1.mp4", noise(2), 10)
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    assert read_folders(tmp_path).splits == ("train", "val")
    write_video(tmp_path / "classes" / "b" / "1.mp4", noise(2), 10)
    (tmp_path / "classes" / "run").mkdir()
    (tmp_path / "classes" / "run" / "model.safetensors").write_text("")
    (tmp_path / "classes" / "empty").mkdir()
    assert read_folders(tmp_path / "classes").class_names == ("b", "empty")


def test_a_place_that_cannot_be_written_names_the_file_and_not_its_temporary(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"x.csv: cannot be written .*; choose another place"),
        atomic(tmp_path / "file" / "x.csv"),
    ):
        pass


def test_what_a_killed_writer_left_is_swept_and_fresh_files_stay(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".a.x1.partial.mp4", tmp_path / ".b.x2.partial"
    old.write_text("x")
    fresh.mkdir()
    os.utime(old, (1, 1))
    assert sweep_partial(tmp_path) == 1
    assert not old.exists()
    assert fresh.exists()


def test_copies_in_another_format_are_compared_with_their_originals(tmp_path: Path) -> None:
    for name, suffix in (("a", ".avi"), ("b", ".mp4")):
        lines = [{"class_names": ["x", "y"]}]
        for number in range(3):
            lines.append(
                {
                    "video": f"x/{number}{suffix}",
                    "label": "x",
                    "group": None,
                    "ood": None,
                    "logits": [1.0, 0.0],
                    "probs": [0.7, 0.3],
                }
            )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    assert compare_predictions(tmp_path / "a.jsonl", tmp_path / "b.jsonl")["num_videos"] == 3


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_behind_what_it_answered(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for label in ("bright", "dark"):
        for number in range(50):
            write_video(tmp_path / "data" / label / f"{number}.mp4", noise(30, number), 10)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "marey", "evaluate", str(tiny_checkpoint)]
    words += ["--data", str(tmp_path / "data"), "--batch-size", "2", "--json"]
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def parts() -> list[Path]:
        found = (tmp_path / "cache" / "marey" / "answers").rglob("*.safetensors")
        return [path for path in found if ".partial" not in path.name]  # whole files

    for _ in range(12000):
        if parts():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the videos that were answered are kept; go on with: marey evaluate" in error
    assert parts()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    plain = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["num_videos"] == 100
    assert json.loads(done.stdout) == json.loads(plain.stdout)
    assert not parts()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "garbage"])
@pytest.mark.parametrize(
    "command",
    [
        "predict",
        "timeline",
        "detect",
        "pose",
        "evaluate",
        "robustness",
        "trust",
        "check",
        "pack",
        "corrupt",
        "features",
        "split",
        "train",
    ],
)
def test_one_bad_file_is_named_and_the_others_are_done(
    command: str,
    damage: str,
    tiny_checkpoint: Path,
    small_config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    for label in ("bright", "dark"):
        for number in range(2):
            write_video(data / label / f"{number}.mp4", noise(12, len(label) + number), 10)
    bad = data / "dark" / "bad.mp4"
    bad.write_bytes(b"" if damage == "empty" else b"no video" * 99)
    small = tmp_path / "small.json"
    halves = replace(small_config, data=replace(small_config.data, val_fraction=0.5))
    small.write_text(json.dumps(halves.to_dict()))
    words = {
        "predict": ["predict", str(data), "--model", str(tiny_checkpoint)],
        "timeline": ["predict", str(data), "--model", str(tiny_checkpoint), "--timeline"],
        "detect": ["detect", str(data), "--model", str(tiny_checkpoint)],
        "pose": ["pose", str(data), "--persons", "movenet"],
        "robustness": [
            *("robustness", str(tiny_checkpoint), "--data", str(data), "--shuffles", "0"),
            *("--corruptions", "gaussian_noise", "--severities", "1", "--out", str(tmp_path / "r")),
        ],
        "trust": [
            *("trust", str(tiny_checkpoint), "--data", str(data), "--corruptions", "none"),
            *("--out", str(tmp_path / "out")),
        ],
        "split": ["data", "split", str(data), "--out", str(tmp_path / "manifest.csv")],
        "train": [
            *("train", str(small), "--data", str(data), "--out", str(tmp_path / "out")),
        ],
        "evaluate": ["evaluate", str(tiny_checkpoint), "--data", str(data)],
        "check": ["data", "check", str(data)],
        "pack": ["data", "pack", str(data), "--out", str(tmp_path / "out"), "--workers", "1"],
        "corrupt": ["corrupt", str(data), "--out", str(tmp_path / "out"), "--workers", "1"],
        "features": [
            "features",
            str(data),
            "--out",
            str(tmp_path / "out"),
            "--encoder",
            str(tiny_checkpoint),
        ],
    }[command]
    assert run(words) == (0 if command == "train" else 1)
    printed = capsys.readouterr()
    assert "bad.mp4" in printed.out + printed.err
    assert "Traceback" not in printed.err
