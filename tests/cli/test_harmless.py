"""Control characters in names of files and classes reach no terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from marey.cli import run
from marey.cli.output import harmless

EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202eb"


def test_text_is_written_out() -> None:
    written = harmless(EVIL)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in written)
    assert "\\u001b[2J" in written
    assert harmless("tab\tand\nline, ü and 動") == "tab\tand\nline, ü and 動"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_file_and_a_class_with_escapes_are_printed_without(
    tiny_checkpoint: Path,
    day_and_night: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    config = json.loads((model / "config.json").read_text())
    config["class_names"] = [EVIL, "dark" + EVIL]
    (model / "config.json").write_text(json.dumps(config))
    video = tmp_path / f"{EVIL}.mp4"
    shutil.copy(day_and_night, video)
    gone = str(tmp_path / f"gone{EVIL}.mp4")
    run(["predict", str(video), gone, "--model", str(model), *options])
    captured = capsys.readouterr()
    for text in captured:
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
    if options:  # what programs read is still the true name
        results = json.loads(captured.out)["results"]
        assert results[0]["video"] == str(video)
        assert EVIL in results[0]["predictions"][0]["label"]
    assert run(["predict", str(video), "--model", EVIL]) == 2
    assert "\x1b" not in capsys.readouterr().err
