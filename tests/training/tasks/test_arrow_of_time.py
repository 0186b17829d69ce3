"""The task "arrow_of_time": whole recordings are held out, labels are not read, videos are tuned
on."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.models.arrow_of_time import ArrowOfTime
from marey.recipes.mini import arrow_of_time, arrow_tune
from marey.training.config import TrainConfig, override
from marey.training.data_config import DataConfig
from marey.training.loop import train
from marey.training.tasks import arrow_of_time as task
from marey.training.tasks import build_task
from marey.training.tasks.arrow_of_time import DirectedWindows, hold_out_groups
from marey.transforms.pose_clip import PoseSampling


def test_every_second_window_is_played_backwards():
    clips = torch.rand(4, 16, 17, 3)
    data = DirectedWindows(clips)
    assert [data[i]["label"] for i in range(4)] == [0, 1, 0, 1]
    assert torch.equal(data[2]["clip"], clips[2])
    assert torch.equal(data[(5, 3)]["clip"], clips[3].flip(0))


def test_groups_are_held_out_whole():
    windows = {f"video {n}": [torch.full((2, 16, 17, 3), float(n))] for n in range(10)}
    known, held_out = hold_out_groups(windows, PoseSampling(), val_fraction=0.2, seed=1)
    assert (len(known), len(held_out)) == (16, 4)
    assert not set(known.unique().tolist()) & set(held_out.unique().tolist())


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """40 windows of four recordings; one of them is in "train" and in "val"."""
    generator = np.random.default_rng(0)
    keypoints = generator.uniform(0.3, 1.0, (40, 16, 34, 3)).astype(np.float16)
    np.save(tmp_path / "keypoints.npy", keypoints)
    groups = (("cmu/a", "train"), ("cmu/b", "train"), ("cmu/c", "val"), ("cmu/a", "val"))
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "group", "row"])
        for row in range(40):
            group, split = groups[row % 4]
            writer.writerow([f"window {row}", "walk", split, group, row])
    sampling = asdict(replace(PoseSampling(), num_persons=2))
    description = {"format": 1, "kind": "poses", "sampling": sampling, "num_windows": 40}
    (tmp_path / "packed.json").write_text(json.dumps(description))
    return tmp_path


def short(config: TrainConfig, data: Path) -> TrainConfig:
    """Two steps of a recipe."""
    changes = ["train.max_steps=2", "train.batch_size=8", "train.eval_every=2"]
    return override(config, [*changes, "train.tensorboard=false", f"data.path={data}"])


def test_validation_windows_are_of_recordings_that_training_does_not_show(packed):
    built = build_task(short(arrow_of_time(), packed))
    assert (len(built.train_data), len(built.val_data)) == (20, 10)
    assert built.train_data[0]["clip"].shape == (16, 17, 3)


def test_the_recipe_trains_and_is_tuned_on_videos_without_labels(packed, tmp_path, monkeypatch):
    result = train(short(arrow_of_time(), packed), tmp_path / "run", quiet=True)
    assert 0 <= result.best <= 1
    found = load_checkpoint(tmp_path / "run")
    assert isinstance(found.model, ArrowOfTime)
    assert found.class_names == ["forwards", "backwards"]
    assert found.pose_sampling is not None

    videos = tmp_path / "videos"
    for number in range(5):
        (videos / "any").mkdir(parents=True, exist_ok=True)
        (videos / "any" / f"{number}.mp4").write_bytes(b"")
    people = torch.rand(6, 16, 17, 3)
    monkeypatch.setattr(
        task, "windows_of_videos", lambda index, sampling, **options: (people, people[:2])
    )
    config = override(short(arrow_tune(), videos), [f"model.init_from={tmp_path / 'run'}"])
    assert train(config, tmp_path / "tuned", quiet=True).steps == 2


def test_videos_without_people_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "any").mkdir()
    (tmp_path / "any" / "1.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="nobody was found for long enough to learn from"):
        build_task(short(arrow_tune(), tmp_path))
    with pytest.raises(UserError, match="give --data a folder of videos"):
        build_task(arrow_tune())


def test_a_plain_folder_of_videos_is_enough_and_test_videos_are_left_out(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for number in range(3):
        (plain / f"{number}.mp4").write_bytes(b"")
    assert len(task.open_videos(DataConfig(path=str(plain)))) == 3
    for split in ("train", "test"):
        (tmp_path / "set" / split / "walk").mkdir(parents=True)
        (tmp_path / "set" / split / "walk" / "1.mp4").write_bytes(b"")
    [sample] = task.open_videos(DataConfig(path=str(tmp_path / "set"))).samples
    assert sample.split == "train"
