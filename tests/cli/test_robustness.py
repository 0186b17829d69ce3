"""`marey corrupt` and `marey robustness` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from marey.cli import build_app
from marey.cli.robustness import _attack_options, parse_kinds, parse_severities
from marey.corruptions import KINDS, PROFILES
from marey.errors import UserError
from marey.evaluation.robustness import BenchmarkConfig
from marey.video.encode import write_video

TOYS = Path(__file__).resolve().parents[1] / "evaluation"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for label, level in (("dark", 60), ("light", 190)):
        frames = torch.full((8, 3, 48, 60), level, dtype=torch.uint8)
        write_video(tmp_path / "set" / label / "a.mp4", frames, fps=24.0)
    return tmp_path / "set"


def test_lists_of_kinds_and_severities() -> None:
    assert parse_kinds("all", "rose") == list(KINDS)
    assert parse_kinds("profile", "rose") == list(PROFILES["rose"])
    assert parse_kinds("weather,fog,jumble", "rose") == ["fog", "rain", "jumble"]
    assert parse_kinds("none", "rose") == []
    with pytest.raises(UserError, match="did you mean 'freeze'"):
        parse_kinds("freze", "rose")
    assert parse_severities("5,1,5") == [1, 5]
    for wrong in ("0", "6", "", "x"):
        with pytest.raises(UserError, match=r"severity is one of|--severities is a list"):
            parse_severities(wrong)


def test_options_of_attacks() -> None:
    assert _attack_options(["pgd.steps=20", "pgd.eps=0.03"]) == {"pgd": {"steps": 20, "eps": 0.03}}
    assert _attack_options(["pgd.eps=8/255"]) == {"pgd": {"eps": 8 / 255}}
    with pytest.raises(UserError, match=r"attack\.option=value"):
        _attack_options(["pgd"])
    with pytest.raises(UserError, match="unknown attack 'pdg'"):
        _attack_options(["pdg.steps=1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pgd": {"eps": 8}}, r"pgd.eps=8/255"),
        ({"pgd": {"esp": 0.1}}, "did you mean 'eps'"),
        ({"pgd": {"steps": 0}}, "pgd.steps is a count"),
        ({"pgd": {"eps": "much"}}, "pgd.eps is a number"),
        ({"fgsm": {"eps": 0.1}}, "not among --attacks"),
    ],
)
def test_options_of_attacks_are_checked_before_any_video_is_opened(options, message) -> None:
    with pytest.raises(UserError, match=message):
        BenchmarkConfig(attacks=("pgd",), attack_options=options)
    BenchmarkConfig(attacks=("pgd", "pgd_l2"), attack_options={"pgd_l2": {"eps": 4.0}})


def test_corrupt_writes_a_copy_and_says_what_it_did(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        build_app(),
        [
            "corrupt",
            str(data),
            "--out",
            str(tmp_path / "P"),
            "--corruption",
            "fog",
            "--severity",
            "2",
            "--workers",
            "1",
            "--json",
        ],
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["written"] == 2
    assert "not in profile rose" in result.stderr
    assert (tmp_path / "P" / "dark" / "a.mp4").is_file()


def test_an_unreadable_video_gives_exit_status_1(data: Path, tmp_path: Path) -> None:
    (data / "dark" / "broken.mp4").write_bytes(b"no video")
    result = CliRunner().invoke(
        build_app(),
        [
            "corrupt",
            str(data),
            "--out",
            str(tmp_path / "P"),
            "--corruption",
            "contrast",
            "--severity",
            "1",
            "--workers",
            "1",
        ],
    )
    assert result.exit_code == 1
    assert "broken.mp4" in result.stderr
    assert "2 written, 0 already there, 1 failed" in result.stdout


def test_robustness_writes_its_report(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOYS))
    out = tmp_path / "report"
    arguments = [
        "robustness",
        "toy_models:brightness_network",
        "--data",
        str(data),
        "--out",
        str(out),
        "--corruptions",
        "brightness",
        "--severities",
        "1,5",
        "--attacks",
        "pgd",
        "--attack-set",
        "pgd.steps=2",
        "--at",
        "64",
        "--shuffles",
        "1",
    ]
    result = CliRunner().invoke(build_app(), [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert (
        json.loads(result.stdout)["models"]["toy_models:brightness_network"]["clean_accuracy"]
        == 1.0
    )
    assert (out / "report.html").stat().st_size > 3000
    assert (out / "report.csv").read_text().startswith("model,rank,what,value,low,high,videos")
    report = str(out / "report.json")
    compared = CliRunner().invoke(build_app(), ["compare", report, report])
    assert compared.exit_code == 0, compared.output
    assert "clean: A 100.0%   B 100.0%   B - A = +0.0 points" in compared.stdout
    again = CliRunner().invoke(build_app(), arguments)
    assert again.exit_code == 0
    assert "clean 100.0%, mPC 75.0%" in again.stdout
    with pytest.raises(UserError, match="is none of the models given"):
        CliRunner().invoke(build_app(), [*arguments, "--reference", "x"], catch_exceptions=False)
