"""Ctrl-C in every long command: one line says what is kept and how to go on, and going on gives
what an uninterrupted run gives."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marey.cli import run
from marey.training.config import TrainConfig
from marey.video.encode import write_video
from marey.video.stream import VideoFile


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bright and three dark videos of coarse noise."""
    root = tmp_path_factory.mktemp("data")
    for label, level in (("bright", 140), ("dark", 20)):
        for number in range(3):
            generator = torch.Generator().manual_seed(number)
            coarse = level + torch.randint(0, 90, (6, 3, 6, 8), generator=generator)
            frames = coarse.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)
            write_video(root / label / f"{number}.mp4", frames, 10)
    return root


class Opened:
    """Counts the videos that are opened, and presses Ctrl-C at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.interrupt_at = 0, 0
        original = VideoFile.__init__

        def counted(file: VideoFile, *words: Any, **options: Any) -> None:
            self.count += 1
            if self.count == self.interrupt_at:
                signal.raise_signal(signal.SIGINT)
            original(file, *words, **options)

        monkeypatch.setattr(VideoFile, "__init__", counted)

    def during(self, words: list[str], interrupt_at: int = 0) -> tuple[int, int]:
        """Run a command; returns its status and how many videos it opened."""
        self.count, self.interrupt_at = 0, interrupt_at
        return run(words), self.count


def bytes_below(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob(pattern))}


Words = Callable[[Path, Path, Path], list[str]]
COMMANDS: dict[str, tuple[Words, str, str]] = {
    "predict": (lambda d, m, o: ["predict", str(d), "--model", str(m)], "", "answered"),
    "timeline": (
        lambda d, m, o: ["predict", str(d), "--model", str(m), "--timeline"],
        "",
        "answered",
    ),
    "detect": (lambda d, m, o: ["detect", str(d), "--model", str(m)], "", "answered"),
    "pose": (lambda d, m, o: ["pose", str(d), "--persons", "movenet"], "", "answered"),
    "evaluate": (
        lambda d, m, o: ["evaluate", str(m), "--data", str(d), "--batch-size", "1"],
        "",
        "answered",
    ),
    "trust": (
        lambda d, m, o: [
            "trust",
            str(m),
            "--data",
            str(d),
            "--out",
            str(o),
            "--corruptions",
            "gaussian_noise",
            "--severities",
            "3",
        ],
        "",
        "answers",
    ),
    "robustness": (
        lambda d, m, o: [
            "robustness",
            str(m),
            "--data",
            str(d),
            "--out",
            str(o),
            "--corruptions",
            "gaussian_noise",
            "--severities",
            "3",
            "--shuffles",
            "0",
        ],
        "",
        "measured",
    ),
    "features": (
        lambda d, m, o: ["features", str(d), "--encoder", str(m), "--out", str(o)],
        "*.tfrecord",
        "features",
    ),
    "corrupt": (
        lambda d, m, o: ["corrupt", str(d), "--out", str(o), "--workers", "1"],
        "*.mp4",
        "copies",
    ),
    "pack": (
        lambda d, m, o: ["data", "pack", str(d), "--out", str(o), "--workers", "1"],
        "*.mp4",
        "copies",
    ),
    "train": (
        lambda d, m, o: [
            "train",
            str(o.parent / "small.json"),
            "--data",
            str(d),
            "--out",
            str(o),
            "--quiet",
        ],
        "*.safetensors",
        "last saved step",
    ),
}
"""The command line from data, model and output; the files to compare, or the JSON; what is kept."""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_is_said_and_going_on_gives_the_same(
    command: str,
    data: Path,
    tiny_checkpoint: Path,
    small_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words_of, pattern, kept = COMMANDS[command]
    opened = Opened(monkeypatch)
    small = replace(small_config, train=replace(small_config.train, epochs=3))

    def asked(name: str) -> list[str]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{name} cache"))
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "small.json").write_text(json.dumps(small.to_dict()))
        words = words_of(data, tiny_checkpoint, tmp_path / name / "out")
        return words if pattern else [*words, "--json"]

    def result(name: str) -> Any:
        printed = capsys.readouterr().out
        if pattern:
            return bytes_below(tmp_path / name / "out", pattern)
        found = json.loads(printed)
        return {key: value for key, value in found.items() if key != "command"}

    status, whole_count = opened.during(asked("whole"))
    assert status == 0
    whole = result("whole")

    # the second half of what `evaluate` opens is for the control that sees metadata alone
    moment = whole_count // 2 if command == "evaluate" else whole_count - 1
    status, _ = opened.during(asked("cut"), interrupt_at=moment)
    assert status == 130
    error = capsys.readouterr().err
    assert error.count("marey: interrupted") == 1
    assert kept in error
    assert "go on with: marey " in error
    assert "Traceback" not in error

    again = ["--resume"] if command == "train" else []
    status, count = opened.during([*asked("cut"), *again])
    assert status == 0
    assert count < whole_count
    assert result("cut") == whole
