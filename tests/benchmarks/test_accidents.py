"""`benchmarks.accidents` at its smallest: two kills, and two commands on a full disk."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.accidents import fill_disk, kill_trainings
from marey.training.config import TrainConfig
from marey.video.encode import write_video


def small_training(config: TrainConfig, folder: Path) -> list[str]:
    """Write six videos and the configuration; returns the command line of a training."""
    for label, level in (("bright", 200), ("dark", 30)):
        for number in range(3):
            frames = torch.full((4, 3, 32, 32), level + 5 * number, dtype=torch.uint8)
            write_video(folder / "data" / label / f"{number}.mp4", frames, 10)
    file = folder / "small.json"
    file.write_text(json.dumps(config.to_dict()))
    return ["train", str(file), "--data", str(folder / "data")]


@pytest.mark.slow
def test_killed_trainings_end_in_the_weights_of_an_uninterrupted_one(
    small_config: TrainConfig,
) -> None:
    run = replace(small_config.train, batch_size=4, max_steps=12, save_every=2, eval_every=6)
    found = kill_trainings(2, partial(small_training, replace(small_config, train=run)))
    assert found["kills"] == 2
    assert found["trainings_finished"] == found["weights_equal_to_the_uninterrupted"] >= 1
    assert found["errors"] == []
    assert found["partial_files_left"] == []


@pytest.mark.slow
def test_commands_on_a_full_disk_end_in_one_line_and_leave_nothing() -> None:
    try:
        rows = fill_disk(only=("data split", "corrupt"))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    assert set(rows) == {"data split", "corrupt"}
    for row in rows.values():
        assert row["status"] == 2
        assert row["names_the_place"]
        assert row["says_full"]
        assert not row["traceback"]
        assert set(row["left_behind"]) <= {"out"}  # an empty folder
