"""`marey pose`, and `--blur` of the commands that write pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marey.cli import build_app, run
from marey.video.decode import open_video


def invoke(*arguments: str):
    return CliRunner().invoke(build_app(), list(arguments))


def test_one_json_document_with_every_frame_and_a_copy_with_skeletons(
    walkers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    result = invoke("pose", str(walkers), "--fps", "5", "--json", "--save-annotated", str(out))
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["persons"] == "auto"
    assert document["keypoint_names"][0] == "nose"
    (entry,) = document["results"]
    assert entry["error"] is None
    assert len(entry["frames"]) == 10
    assert len(entry["tracks"]) == 2
    person = entry["frames"][0]["persons"][0]
    assert set(person) == {"track", "score", "observed", "box_xyxy", "keypoints"}
    assert len(person["keypoints"]) == 17
    with open_video(out) as reader:
        assert reader.num_frames == 25


def test_people_are_told_in_words(walkers: Path) -> None:
    result = invoke("pose", str(walkers), "--persons", "movenet", "--fps", "5")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == str(walkers)
    assert "0:00.0 to 0:01." in lines[1]
    assert "pixels tall" in lines[1]


def test_a_video_without_people_says_so(day_and_night: Path) -> None:
    result = invoke("pose", str(day_and_night), "--persons", "movenet", "--fps", "1")
    assert "nobody found" in result.stdout


def test_one_bad_file_does_not_stop_the_others(walkers: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    result = invoke("pose", str(tmp_path / "bad.mp4"), str(walkers), "--fps", "2", "--json")
    assert result.exit_code == 1
    bad, good = json.loads(result.stdout)["results"]
    assert bad["error"].startswith(str(tmp_path / "bad.mp4"))
    assert good["error"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--persons", "hogg"], "unknown source of persons 'hogg'; did you mean 'hog'"),
        (["--persons", "own"], "--persons own are the boxes of a detection model"),
        (["--blur", "face"], "unknown kind of blur 'face'; did you mean 'faces'"),
        (["--fps", "0"], "fps is above 0, got 0"),
        (["--image-size", "250"], "image_size is a multiple of 32, got 250"),
        (["--tiles", "0"], "max_people and tiles are at least 1"),
        (["--max-people", "0"], "max_people is at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    walkers: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(["pose", str(walkers), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_every_command_that_writes_pictures_can_blur() -> None:
    for command in ("pose", "detect", "predict", "explain"):
        assert "--blur" in invoke(command, "--help").output
