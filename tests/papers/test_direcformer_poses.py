"""Every line of the mini tables on poses trains and is measured, on windows made up here."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from marey.errors import UserError
from marey.papers import direcformer_poses as study
from marey.papers.cells import ReproduceOptions, Row, rows_of
from marey.papers.direcformer import JESTER, TABLES, with_chosen
from marey.transforms.pose_clip import PoseSampling

ROWS = (*JESTER, *rows_of(TABLES, "graded", Row))


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 windows of two actions in three splits; the hips rise with time."""
    root = tmp_path_factory.mktemp("windows")
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0.3, 1.0, (60, 16, 34, 3)).astype(np.float16)
    keypoints[:, :, :, 1] += np.linspace(0, 2, 16, dtype=np.float16)[None, :, None]
    np.save(root / "keypoints.npy", keypoints)
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "split", "group", "row"])
        for row in range(60):
            label = ("jump", "sit", "stand")[row % 3]
            split = ("train", "train", "val", "test")[row // 3 % 4]
            writer.writerow([f"w{row}", label, split, "spoiled/a" if row < 6 else "a", row])
    description = {"format": 1, "kind": "poses", "sampling": asdict(PoseSampling())}
    (root / "packed.json").write_text(json.dumps(description))
    return root


def test_clips_are_every_second_moment_of_the_wanted_actions(windows):
    clips = study.pose_clips(windows)
    assert clips.features.shape == (36, 8, 17, 3)
    assert {study.MOTIONS[label] for label in clips.labels.tolist()} == {"jump", "sit"}
    assert clips.splits.count("test") == 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_line_trains_and_is_measured(row, windows, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 2)
    options = ReproduceOptions(cache=tmp_path, data=str(windows))
    found = study.run_pose_cell(with_chosen(row), options, 0)
    assert 0 <= found["top1"] <= found["top5"] <= 100
    assert found["up_to_direction"] >= found["order_acc"]
    assert (found["clips"], len(found["right"]), len(found["order_accs"])) == (10, 20, 10)
    assert 100 * np.mean(found["order_accs"]) == pytest.approx(found["order_acc"], abs=0.01)
    assert found["order_loss"] > 0


def test_data_is_asked_for():
    with pytest.raises(UserError, match="give --data WINDOWS, made by `marey data render poses"):
        study.run_pose_cell(ROWS[0], ReproduceOptions(), 0)
