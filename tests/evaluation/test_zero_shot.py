"""Accuracy on classes held out of training, from the numbers to the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.evaluation.classification import EvaluateOptions
from marey.evaluation.evaluate import evaluate
from marey.evaluation.zero_shot import generalised_area, harmonic_mean, unseen_accuracies
from marey.training.config import ModelConfig, OptimConfig, RunConfig, TrainConfig, override
from marey.training.data_config import DataConfig
from marey.training.loop import train
from marey.training.objective_config import LabelConfig, ObjectiveConfig
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

LEVELS = {"night": 20, "dusk": 90, "day": 160, "glare": 230}
NAMES = {"night": [1.0, 0.0], "dusk": [0.87, 0.5], "day": [0.5, 0.87], "glare": [0.0, 1.0]}
"""Brightness and meaning lie on one line, so that "dusk" can be told by name from the other
three."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed set of four brightnesses, 12 clips each, half of them test clips, with a file of
    label vectors."""
    root = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    labels = [label for _ in range(12) for label in LEVELS]
    frames = np.stack(
        [
            np.clip(LEVELS[label] + generator.normal(0, 8, (2, 3, 16, 16)), 0, 255)
            for label in labels
        ]
    )
    np.save(root / "frames.npy", frames.astype(np.uint8))
    (root / "packed.json").write_text(json.dumps({"format": 1, "fps": 8.0}))
    rows = "".join(
        f"c{i},{label},{'test' if i % 8 >= 4 else 'train'}\n" for i, label in enumerate(labels)
    )
    (root / "manifest.csv").write_text("path,label,split\n" + rows)
    (root / "labels.json").write_text(json.dumps(NAMES))
    return root


def config(
    root: Path, *, training: str = "joint", unseen: tuple[str, ...] = ("dusk",), steps: int = 60
) -> TrainConfig:
    preprocess = Preprocess(
        sampling=ClipSampling(kind="equidistant", num_frames=2), short_side=16, image_size=16
    )
    tiny = {
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
        "patch_size": 16,
        "label_hidden": [8],
        "class_hidden": [8],
    }
    return TrainConfig(
        model=ModelConfig(name="sevitar", arguments=tiny),
        data=DataConfig(
            path=str(root), preprocess=preprocess, val_fraction=0.0, unseen_classes=unseen
        ),
        optim=OptimConfig(lr=1e-2, schedule="constant"),
        objective=ObjectiveConfig(
            weights={"class": 1.0, "label": 1.0},
            label=LabelConfig(
                source=str(root / "labels.json"),
                stage_shares=(0.5, 0.25, 0.25) if training == "staged" else None,
            ),
        ),
        train=RunConfig(
            max_steps=steps,
            batch_size=18,
            eval_every=steps,
            device="cpu",
            tensorboard=False,
            calibrate=False,
            threads=1,
        ),
    )


@pytest.fixture(scope="module", params=["joint", "staged"])
def run(
    request: pytest.FixtureRequest, clips: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run without the class "dusk"."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    train(config(clips, training=request.param), out, quiet=True)
    return out


def test_harmonic_mean_is_low_where_one_side_is() -> None:
    assert harmonic_mean(0.9, 0.1) == pytest.approx(0.18)
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_accuracies_worked_by_hand() -> None:
    """Names at 0, 90 | 180, 225 degrees: two seen, two unseen.

    Seen videos: the two of class 0 are right, class 1 is right once of twice: (1 + 0.5) / 2.
    Unseen: 2 is right, 3 is taken for seen class 0 (and, among unseen names, for 3): 0.5 and 1.
    """

    def at(*degrees: float) -> torch.Tensor:
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack((angles.cos(), angles.sin()), dim=1)

    names = at(0, 90, 180, 225)
    found = unseen_accuracies(
        at(5, -5, 90, 20, 180, 300), names, torch.tensor([0, 0, 1, 1, 2, 3]), 2
    )
    assert found == {
        "seen": 0.75,
        "unseen": 0.5,
        "harmonic_mean": pytest.approx(0.6),
        "zero_shot": 1.0,
        "chance": 0.5,
    }
    only = unseen_accuracies(at(180, 225), names, torch.tensor([2, 3]), 2)
    assert (only["seen"], only["harmonic_mean"], only["unseen"]) == (None, None, 1.0)


def test_the_area_sees_an_order_that_the_plain_ranking_hides() -> None:
    """Names at 0, 90 | 180, 270 degrees. The video of 180 points to 130 and is taken for 90.

    A small handicap of the seen names puts all four right.
    """

    def at(*degrees: float) -> torch.Tensor:
        angles = torch.tensor(degrees).deg2rad()
        return torch.stack((angles.cos(), angles.sin()), dim=1)

    names, labels = at(0, 90, 180, 270), torch.tensor([0, 1, 2, 3])
    predicted = at(0, 90, 130, 270)
    assert unseen_accuracies(predicted, names, labels, 2)["unseen"] == 0.5
    assert generalised_area(predicted, names, labels, 2) == pytest.approx(1.0)
    # The unseen are mistaken for one another, whatever the handicap.
    assert generalised_area(at(0, 90, 270, 180), names, labels, 2) == pytest.approx(0.0)
    # One of the two unseen is right: the curve is flat at a half.
    assert generalised_area(at(0, 90, 181, 181), names, labels, 2) == pytest.approx(0.5)
    assert generalised_area(predicted[:2], names, labels[:2], 2) is None


def test_held_out_classes_are_not_trained_and_their_vectors_travel(run: Path) -> None:
    checkpoint = load_checkpoint(run / "last")
    assert checkpoint.class_names == ["day", "glare", "night"]
    assert checkpoint.extra["unseen_classes"] == ["dusk"]
    assert checkpoint.tensors["unseen_embeddings"].shape == (1, 2)
    assert checkpoint.model.arguments["num_classes"] == 3


def test_the_evaluation_needs_no_source_of_vectors(run: Path, clips: Path) -> None:
    (clips / "labels.json").rename(clips / "away.json")
    try:
        report, answers = evaluate(run, clips, EvaluateOptions(unseen=True))
    finally:
        (clips / "away.json").rename(clips / "labels.json")
    assert answers is None
    assert (report["num_videos"], report["unseen_classes"], report["chance"]) == (24, ["dusk"], 1.0)
    assert report["seen_accuracy"] > 0.6
    assert report["zero_shot_accuracy"] == 1.0
    assert report["harmonic_mean"] == pytest.approx(
        harmonic_mean(report["seen_accuracy"], report["unseen_accuracy"])
    )


def test_training_videos_among_unseen_classes_are_said_with_the_numbers_on_the_others(
    run: Path, clips: Path
) -> None:
    clean, _ = evaluate(run, clips, EvaluateOptions(unseen=True))
    assert "seen_in_training" not in clean
    report, _ = evaluate(run, clips, EvaluateOptions(unseen=True, split="train"))
    seen = report["seen_in_training"]
    assert seen["text"].startswith("LEAKED: 18 of these 24 videos are training videos of this")
    assert (seen["num_videos"], seen["clean"]["num_videos"]) == (18, 6)
    assert seen["clean"]["zero_shot_accuracy"] == 1.0


def test_joint_and_staged_runs_predict_export_and_resume(
    run: Path, clips: Path, tmp_path: Path
) -> None:
    from marey.checkpoints.export import export_torch

    clip = torch.zeros(1, 2, 3, 16, 16)
    first = load_checkpoint(run / "last").model(clip)
    assert (first["logits"].shape, first["label_embedding"].shape) == ((1, 3), (1, 2))
    export_torch(load_checkpoint(run / "last"), tmp_path / "model.pt2")
    assert (tmp_path / "model.pt2").stat().st_size > 0
    training = load_checkpoint(run / "last").extra["label_training"]
    halves = config(clips, training=training, steps=8)
    train(halves, tmp_path / "whole", quiet=True)
    half = replace(halves, train=replace(halves.train, save_every=5))

    class StopError(Exception):
        pass

    class StopAtSix:
        def step(self, step: int, total: int, text: str) -> None:
            if step == 6:
                raise StopError

        def say(self, text: str) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(StopError):
        train(half, tmp_path / "cut", progress=StopAtSix())
    train(half, tmp_path / "cut", resume=True, quiet=True)
    one, two = (
        load_checkpoint(tmp_path / name / "last").model.state_dict() for name in ("whole", "cut")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_command_prints_chance_beside_the_accuracy(run: Path, clips: Path) -> None:
    from marey.cli import build_app

    result = CliRunner().invoke(
        build_app(),
        [
            "evaluate",
            str(run),
            "--data",
            str(clips),
            "--unseen",
            "--hubness",
            "--json",
            "--out",
            str(run / "unseen"),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "among unseen names 100.0%" in result.stderr
    assert "(chance 100.0%)" in result.stderr
    report = json.loads(result.stdout)
    assert report["hubness_correction"] == "csls"
    assert json.loads((run / "unseen" / "report.json").read_text())["unseen_classes"] == ["dusk"]


def test_mistakes_are_named(run: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"unknown class in data.unseen_classes 'dask'; did you mean 'dusk'"
    ):
        train(config(clips, unseen=("dask",)), tmp_path / "a", quiet=True)
    wrong = config(clips)
    with pytest.raises(
        UserError, match="unknown setting of 'data': 'unseen'; did you mean 'unseen_classes'"
    ):
        override(wrong, ["data.unseen=[]"])
    whole = tmp_path / "whole"
    train(config(clips, unseen=(), steps=1), whole, quiet=True)
    with pytest.raises(
        UserError, match="was trained on all 4 labels of these videos; leave some out"
    ):
        evaluate(whole, clips, EvaluateOptions(unseen=True))
