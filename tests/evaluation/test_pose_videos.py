"""The bundled pose model scored on labelled videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from marey.cli import build_app
from marey.evaluation.report import load_predictions

EXAMPLES = Path(__file__).parents[2] / "examples"
FIGHT = "fight: kick, punch or push"


@pytest.fixture
def labelled(tmp_path: Path, day_and_night: Path) -> Path:
    """A walk, a kick, and a "walk" in which nobody is."""
    for label, video in (
        ("walk", EXAMPLES / "walk.mp4"),
        (FIGHT, EXAMPLES / "spin_kick.mp4"),
        ("walk", day_and_night),
    ):
        folder = tmp_path / "labelled" / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, folder)
    (tmp_path / "labelled" / "walk" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "labelled"


def test_a_pose_model_is_scored_on_videos(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    arguments = ["evaluate", "marey-mini", "--data", str(labelled), "--out", str(out), "--json"]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 1  # one video is broken
    report = json.loads(result.stdout)
    assert report["num_videos"] == 3
    assert report["top1"] == pytest.approx(2 / 3)
    assert report["num_unreadable"] == 1
    assert report["nobody"]["num_videos"] == 1
    assert "nobody was found in 1 of 3 videos" in result.stderr
    assert report["unknown"]["top1_counting_unknown_as_wrong"] <= report["top1"]
    answers = load_predictions(out)
    assert answers.class_names[-1] == "no person"
    assert torch.allclose(answers.probs.sum(1), torch.ones(3))


def test_other_labels_are_beside_the_score(labelled: Path, tmp_path: Path) -> None:
    (labelled / FIGHT).rename(labelled / "knit")
    out = tmp_path / "report"
    arguments = ["evaluate", "marey-mini", "--data", str(labelled), "--out", str(out), "--json"]
    result = CliRunner().invoke(build_app(), arguments)
    report = json.loads(result.stdout)
    assert report["num_videos"] == 2
    others = report["others"]
    assert (others["labels"], others["num_videos"]) == (["knit"], 1)
    assert (others["called_unknown"], others["nobody"]) == (0, 0)  # a kick, which it names
    assert "no class for (knit): 0 of 1 videos called unknown" in result.stderr
    assert "no class for (knit): " in (out / "report.html").read_text()


def test_labels_it_does_not_know_at_all_are_refused(labelled: Path) -> None:
    (labelled / "walk").rename(labelled / "knit")
    (labelled / FIGHT).rename(labelled / "sew")
    result = CliRunner().invoke(build_app(), ["evaluate", "marey-mini", "--data", str(labelled)])
    assert "not trained on: knit, sew" in str(result.exception)
