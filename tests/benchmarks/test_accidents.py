"""`benchmarks.accidents` at its smallest: two kills, and two commands on a full disk."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.accidents import fill_disk, kill_trainings
from marey.training.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling

SMALL = TrainConfig(
    recipe="small",
    model=ModelConfig(
        name="timesformer", arguments={"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    ),
    data=DataConfig(
        preprocess=Preprocess(
            sampling=ClipSampling(kind="equidistant", num_frames=2), short_side=16, image_size=16
        ),
        val_fraction=0.34,
    ),
    train=RunConfig(
        batch_size=4, max_steps=12, save_every=2, eval_every=6, tensorboard=False, device="cpu"
    ),
)


def small_training(folder: Path) -> list[str]:
    """Write six videos and a configuration; returns the command line of a training."""
    for label, level in (("bright", 200), ("dark", 30)):
        for number in range(3):
            frames = torch.full((4, 3, 32, 32), level + 5 * number, dtype=torch.uint8)
            write_video(folder / "data" / label / f"{number}.mp4", frames, 10)
    config = folder / "small.json"
    config.write_text(json.dumps(SMALL.to_dict()))
    return ["train", str(config), "--data", str(folder / "data")]


@pytest.mark.slow
def test_killed_trainings_end_in_the_weights_of_an_uninterrupted_one() -> None:
    found = kill_trainings(2, small_training)
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
