"""`marey predict` and `watch` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marey.cli import run


def test_json_is_one_document_on_stdout_and_nothing_else(
    tiny_checkpoint: Path, day_and_night: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(day_and_night), "--model", str(tiny_checkpoint), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"model", "results"}
    assert {"video", "predictions", "frame_seconds", "trust", "error"} <= set(
        document["results"][0]
    )


def test_one_bad_file_is_named_the_others_answered_and_the_status_is_1(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "empty.mp4"
    bad.touch()
    assert (
        run(["predict", str(bad), str(day_and_night), "--model", str(tiny_checkpoint), "--json"])
        == 1
    )
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)["results"]
    assert str(bad) in first["error"]
    assert second["error"] is None
    assert captured.err.startswith(f"marey: {bad}")


def test_pictures_tables_and_subtitles_are_written(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(tiny_checkpoint)]
    assert (
        run(
            [
                "predict",
                str(day_and_night),
                *model,
                "--save-annotated",
                str(tmp_path / "a.mp4"),
                "--contact-sheet",
                str(tmp_path / "c.png"),
                "--csv",
                str(tmp_path / "p.csv"),
            ]
        )
        == 0
    )
    assert (
        run(
            [
                "predict",
                str(day_and_night),
                *model,
                "--timeline",
                "--srt",
                str(tmp_path / "t.srt"),
                "--csv",
                str(tmp_path / "t.csv"),
            ]
        )
        == 0
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.mp4",
        "c.png",
        "p.csv",
        "t.srt",
        "t.csv",
    }
    assert (
        (tmp_path / "p.csv")
        .read_text()
        .startswith("video,rank,label,probability,agreement,unknown,still,damaged,warning,error\n")
    )
    shown = capsys.readouterr().out
    assert "trust: calibrated probability" in shown
    assert "0:00.0" in shown


def test_full_trust_is_said_in_words(
    tiny_checkpoint: Path, day_and_night: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(["predict", str(day_and_night), "--model", str(tiny_checkpoint), "--trust", "full"])
        == 0
    )
    assert "of three mild corruptions" in capsys.readouterr().out


def test_watch_prints_a_line_per_answer(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from marey.video.decode import open_video
    from marey.video.encode import write_video

    with open_video(day_and_night) as reader:
        write_video(tmp_path / "live.mkv", reader.frames_at(range(80)).frames, fps=10)
    assert (
        run(
            [
                "watch",
                str(tmp_path / "live.mkv"),
                "--model",
                str(tiny_checkpoint),
                "--idle",
                "0.1",
                "--json",
            ]
        )
        == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["predictions"][0]["label"] == "bright"
    assert lines[-1]["predictions"][0]["label"] == "dark"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "x.mp4", "--model", "no/such"], "no such checkpoint folder"),
        (["predict", "x.mp4", "--labels", " , "], "--labels is empty"),
        (
            ["predict", "x.mp4", "--engine", "spark"],
            "--engine 'spark' is neither 'local' nor 'ray'",
        ),
        (["predict", "--top", "0", "x.mp4"], "Invalid value for '--top'"),
        (["predict"], "Missing argument"),
        (["list", "model"], "unknown list 'model'; did you mean 'models'"),
        (["predikt"], "No such command 'predikt'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_calibrated_is_said_only_where_something_was_fitted(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    plain = tmp_path / "plain"
    shutil.copytree(tiny_checkpoint, plain)
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "calibration": None}))
    assert run(["predict", str(day_and_night), "--model", str(plain)]) == 0
    shown = capsys.readouterr().out
    assert "not calibrated" in shown
    assert "trust: calibrated" not in shown
    for model, labels, calibrated in (
        (tiny_checkpoint, (), True),
        (plain, (), False),
        ("marey-mini-rgb", ("--labels", "walk,run"), False),
    ):
        assert run(["predict", str(day_and_night), "--model", str(model), *labels, "--json"]) == 0
        trust = json.loads(capsys.readouterr().out)["results"][0]["trust"]
        assert trust["calibrated"] is calibrated
    named = ["--model", "marey-mini-rgb", "--labels", "walk,run"]
    assert run(["predict", str(day_and_night), *named]) == 0
    shown = capsys.readouterr().out
    assert "relative to the names given, not calibrated" in shown
    assert "trust: calibrated" not in shown
