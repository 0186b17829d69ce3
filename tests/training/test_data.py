"""Which videos a run trains and validates on, and how they become clips."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from marey.errors import UserError
from marey.training.config import TrainConfig
from marey.training.data import open_splits, preprocess_of
from marey.training.data_config import DataConfig


def manifest(folder: Path, rows: list[tuple[str, str, str]]) -> str:
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    return str(folder / "manifest.csv")


def test_the_test_split_is_never_trained_or_validated_on(tmp_path: Path) -> None:
    rows = [
        (f"{label}{n}.mp4", label, split)
        for label in "ab"
        for n, split in enumerate(["train"] * 5 + ["test"] * 5)
    ]
    train, val = open_splits(DataConfig(path=manifest(tmp_path, rows)), seed=0)
    assert val is not None
    assert {s.split for s in (*train.samples, *val.samples)} == {"train"}
    assert (len(train), len(val)) == (8, 2)


def test_a_validation_split_is_used_as_it_is(tmp_path: Path) -> None:
    rows = [
        (f"{label}{n}.mp4", label, split)
        for label in "ab"
        for n, split in enumerate(["train"] * 5 + ["val"] * 3)
    ]
    train, val = open_splits(DataConfig(path=manifest(tmp_path, rows)), seed=0)
    assert val is not None
    assert (len(train), len(val)) == (10, 6)


def test_classes_left_out_of_training_have_no_number(tmp_path: Path) -> None:
    rows = [(f"{label}{n}.mp4", label, "train") for label in "abc" for n in range(5)]
    config = DataConfig(path=manifest(tmp_path, rows), unseen_classes=("b",))
    train, val = open_splits(config, seed=0)
    assert val is not None
    assert train.class_names == ("a", "c")
    assert {sample.label for sample in (*train.samples, *val.samples)} == {"a", "c"}


def test_a_limit_is_for_training_alone(tmp_path: Path) -> None:
    rows = [(f"{label}{n}.mp4", label, "train") for label in "ab" for n in range(10)]
    train, val = open_splits(DataConfig(path=manifest(tmp_path, rows), limit=6), seed=0)
    assert val is not None
    assert (len(train), len(val)) == (6, 4)


def test_no_data_and_no_preprocessing_are_errors() -> None:
    with pytest.raises(UserError, match="no data: give --data"):
        open_splits(DataConfig(), seed=0)
    with pytest.raises(UserError, match="no preprocessing: set data.preprocess"):
        preprocess_of(TrainConfig())
