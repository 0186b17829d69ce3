from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marey.errors import UserError
from marey.papers import stored_models
from marey.papers.stored_models import data_digest, trained_model
from marey.recipes.gat import gat_youtube8m_mini
from marey.training.config import TrainConfig, override


class Trainer:
    """Stands for `train`: notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[TrainConfig] = []

    def __call__(self, config: TrainConfig, out: Path, **options: Any) -> None:
        self.asked.append(config)
        (out / "best").mkdir(parents=True)


def test_a_model_is_trained_once_and_again_after_any_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train0000.tfrecord").write_bytes(b"one")
    config = gat_youtube8m_mini()
    config = replace(config, data=replace(config.data, path=str(data)))
    train = Trainer()

    def ask(changed: TrainConfig) -> int:
        assert trained_model(changed, tmp_path / "models", train).name == "best"
        return len(train.asked)

    assert [ask(config), ask(config)] == [1, 1]
    assert ask(override(config, ["train.seed=1"])) == 2
    assert ask(override(config, ["model.arguments.windows=[0,4]"])) == 3
    (data / "train0000.tfrecord").write_bytes(b"other")
    assert ask(config) == 4
    monkeypatch.setattr(stored_models, "code_digest", lambda: "another version")
    assert [ask(config), ask(config)] == [5, 5]


def test_an_interrupted_training_is_not_taken_for_a_model(tmp_path: Path) -> None:
    config = gat_youtube8m_mini()
    train = Trainer()

    def fails(config: TrainConfig, out: Path) -> None:
        train(config, out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained_model(config, tmp_path, fails)
    trained_model(config, tmp_path, train)
    assert len(train.asked) == 2


def test_absent_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        data_digest(tmp_path / "none")
