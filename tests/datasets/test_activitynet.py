"""Untrimmed video in official layouts, down to a copy whose actions are perturbed in the middle."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from marey.datasets import open_dataset
from marey.datasets.perturb import perturb_dataset
from marey.errors import UserError
from marey.video.decode import open_video
from marey.video.encode import write_video


def long_video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = torch.full((50, 3, 32, 32), 90, dtype=torch.uint8)
    write_video(path, frames, fps=10.0)


def activitynet(root: Path) -> Path:
    """Two videos with three actions, and one that is no longer to be had."""
    long_video(root / "videos" / "v_aaa.mp4")
    long_video(root / "videos" / "v_bbb.mp4")
    entries = {
        "aaa": ("training", [("Diving", [1.0, 3.0]), ("Running", [4.5, 3.5])]),
        "bbb": ("validation", [("Diving", [0.0, 2.0])]),
        "gone": ("validation", [("Diving", [0.0, 2.0])]),
    }
    database = {
        video: {
            "subset": subset,
            "annotations": [{"label": label, "segment": times} for label, times in actions],
        }
        for video, (subset, actions) in entries.items()
    }
    (root / "activity_net.v1-3.min.json").write_text(json.dumps({"database": database}))
    return root


def thumos(root: Path) -> Path:
    long_video(root / "video_validation_0000051.mp4")
    long_video(root / "video_test_0000004.mp4")
    (root / "annotation").mkdir()
    lists = {
        "BaseballPitch_val": "video_validation_0000051 1.0 2.0\r\nvideo_validation_0000051 3 4\r\n",
        "Diving_test": "video_test_0000004  0.5 1.5\n",
        "Ambiguous_test": "video_test_0000004 2.0 3.0\n",
    }
    for name, text in lists.items():
        (root / "annotation" / f"{name}.txt").write_text(text)
    return root


def times(index) -> list[tuple[str, str | None, float | None, float | None]]:
    return [(s.label, s.split, s.start_seconds, s.end_seconds) for s in index.samples]


def test_activitynet_is_recognised_and_every_action_is_a_sample(tmp_path: Path) -> None:
    index = open_dataset(activitynet(tmp_path))
    assert index.name == "activitynet"
    assert index.class_names == ("Diving", "Running")
    assert times(index) == [
        ("Diving", "train", 1.0, 3.0),
        ("Running", "train", 3.5, 4.5),
        ("Diving", "val", 0.0, 2.0),
    ]
    assert [sample.group for sample in index.samples] == ["aaa", "aaa", "bbb"]


def test_thumos14_is_read_from_its_own_lists(tmp_path: Path) -> None:
    index = open_dataset(thumos(tmp_path))
    assert index.name == "thumos14"
    assert times(index) == [
        ("BaseballPitch", "val", 1.0, 2.0),
        ("BaseballPitch", "val", 3.0, 4.0),
        ("Diving", "test", 0.5, 1.5),
    ]


def test_the_middle_of_every_action_is_perturbed_and_the_times_stay(tmp_path: Path) -> None:
    index = open_dataset(activitynet(tmp_path / "set")).split("val")
    out = tmp_path / "set-C"
    perturb_dataset(index, out, ["brightness"], [5], short_side=0, within_actions=0.2, workers=1)
    with open_video(out / "videos" / "v_bbb.mp4") as reader:
        level = reader.frames_at(list(range(50))).frames.float().mean((1, 2, 3))
    bright = (level > 110).nonzero()[:, 0].tolist()
    assert bright == [8, 9, 10, 11]  # a fifth of 0 to 2 s around 1 s, at 10 frames a second
    row = next(csv.DictReader((out / "manifest.csv").open()))
    assert (row["label"], row["start_seconds"], row["end_seconds"]) == ("Diving", "0.0", "2.0")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no activity_net"):
        open_dataset(tmp_path, dataset="activitynet")
    (tmp_path / "activity_net.json").write_text("{}")
    with pytest.raises(UserError, match="not in ActivityNet's form"):
        open_dataset(tmp_path)
    database = {"a": {"annotations": [{"label": "x", "segment": [0, 1]}]}}
    (tmp_path / "activity_net.json").write_text(json.dumps({"database": database}))
    with pytest.raises(UserError, match="none of their videos is here"):
        open_dataset(tmp_path)
    lists = tmp_path / "thumos" / "annotation"
    lists.mkdir(parents=True)
    (lists / "Diving_test.txt").write_text("video 1.0\n")
    with pytest.raises(UserError, match=r"Diving_test.txt:1: .* is not <video> <start> <end>"):
        open_dataset(lists.parent)
