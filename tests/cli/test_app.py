"""The command line as a whole: what it imports, what it lists."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from marey.cli import build_app, run
from marey.cli.output import counted

HEAVY = ("torch", "torchvision", "av", "numpy", "transformers", "fastapi")


@pytest.mark.parametrize(
    "statement", ["import marey", "from marey.cli import run; run(['--help'])"]
)
def test_importing_and_help_need_no_heavy_library(statement: str) -> None:
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    code = f"{statement}\nimport sys\nprint({loaded}, file=sys.stderr)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stderr.strip().endswith("[]")


def test_every_documented_command_is_there() -> None:
    names = set(typer.main.get_command(build_app()).commands)
    assert {
        "predict",
        "watch",
        "detect",
        "order",
        "train",
        "evaluate",
        "compare",
        "robustness",
        "corrupt",
        "explain",
        "features",
        "reproduce",
        "convert",
        "export",
        "serve",
        "doctor",
        "list",
        "data",
    } <= names


@pytest.mark.parametrize("what", ["models", "recipes", "corruptions", "attacks", "datasets"])
def test_lists_print_names(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", what]) == 0
    assert capsys.readouterr().out.strip()


def test_doctor_finds_every_core_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    assert "write libx264" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "frame", "1 frame"),
        (0, "frame", "0 frames"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "severity", "3 severities"),
    ],
)
def test_numbers_and_nouns_agree(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text
