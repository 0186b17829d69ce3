"""Evaluation of checkpoints on videos: numbers, views, unreadable files, saved answers."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

import marey.evaluation.evaluate as evaluation
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.clips import ClipDataset
from marey.datasets.open import choose_split
from marey.errors import UserError
from marey.evaluation.classification import (
    EvaluateOptions,
    report_of,
    score_answers,
    store_rejection,
)
from marey.evaluation.evaluate import evaluate
from marey.evaluation.report import compare_predictions, load_predictions, write_report
from marey.evaluation.video_strip import STRIP_FRAMES
from marey.inference.answers import AnswerOptions, answer_videos
from marey.inference.predictor import Predictor
from marey.models import create_model
from marey.recipes.gat import gat_youtube8m_mini
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import TrainConfig
from marey.training.loop import train
from marey.transforms.preprocess import Preprocess
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling

PREPROCESS = Preprocess(
    sampling=ClipSampling(kind="equidistant", num_frames=2), short_side=16, image_size=16
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos each of two classes, dark and bright, wider than high."""
    root = tmp_path_factory.mktemp("videos")
    for label, level in (("bright", 200), ("dark", 30)):
        for number in range(3):
            frames = torch.full((6, 3, 32, 48), level + 5 * number, dtype=torch.uint8)
            frames[:, :, :, 40:] = 255 - level
            path = root / label / f"{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, frames, 10)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    network = create_model(
        "timesformer",
        num_classes=2,
        num_frames=2,
        image_size=16,
        patch_size=8,
        embed_dim=16,
        depth=1,
        num_heads=2,
    )
    torch.nn.init.normal_(network.head.weight)  # type: ignore[union-attr, arg-type]
    save_checkpoint(
        folder,
        network,
        class_names=["bright", "dark"],
        preprocess=PREPROCESS,
        calibration={"temperature": 2.0},
    )
    return folder


def test_the_answers_are_those_of_the_model_on_the_one_preprocessing(
    videos: Path, model: Path
) -> None:
    _, answers = evaluate(model, videos)
    assert answers is not None
    checkpoint = load_checkpoint(model)
    index = choose_split(videos)
    data = ClipDataset(index, PREPROCESS)
    with torch.inference_mode():
        logits = checkpoint.model(torch.stack([data[(0, n)]["clip"] for n in range(6)]))["logits"]
    torch.testing.assert_close(answers.logits, logits)
    torch.testing.assert_close(answers.probs, (logits / 2).softmax(-1))


def test_views_are_averaged_over_probabilities_or_logits(videos: Path, model: Path) -> None:
    checkpoint, index = load_checkpoint(model), choose_split(videos)
    answers = answer_videos(checkpoint, index, AnswerOptions(views=(2, 3), batch_size=4))
    together = answer_videos(checkpoint, index, AnswerOptions(views=(2, 3), batch_size=100))
    probabilities = score_answers(answers, checkpoint)
    logits = score_answers(together, checkpoint, fusion="logits")
    torch.testing.assert_close(probabilities.logits, logits.logits)
    torch.testing.assert_close(logits.probs, (logits.logits / 2).softmax(-1))
    assert not torch.allclose(probabilities.probs, logits.probs)


def test_the_report_has_every_number_and_saved_answers_give_it_again(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    report, answers = evaluate(model, videos)
    write_report(tmp_path, report, answers)
    again = report_of(load_predictions(tmp_path))
    assert {key: report[key] for key in again} == again
    assert report["num_videos"] == 6
    assert len(report["manifest_hash"]) == 64
    assert report["preprocess"] == PREPROCESS.to_dict()
    assert (tmp_path / "confusion.png").stat().st_size > 0
    with (tmp_path / "confusion.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sum(int(row[name]) for row in rows for name in ("bright", "dark")) == 6
    assert json.loads((tmp_path / "report.json").read_text())["top1"] == report["top1"]


def test_the_page_shows_the_wrong_videos_the_most_confident_first(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    report, answers = evaluate(model, videos)
    assert answers is not None
    best = answers.probs.argmax(1).tolist()
    answers = replace(answers, labels=[1 - best[0], 1 - best[1], *best[2:]])
    report |= report_of(answers)
    write_report(tmp_path / "a", report, answers, root=videos)
    text = (tmp_path / "a" / "report.html").read_text()
    assert "66.7% of 6 videos are answered rightly" in text
    assert text.count("data:image/jpeg") == 2 * STRIP_FRAMES
    first, second = sorted((0, 1), key=lambda row: -float(answers.probs[row].max()))
    assert text.index(answers.videos[first]) < text.index(answers.videos[second])
    assert answers.videos[2] not in text

    write_report(tmp_path / "b", report, answers)
    assert "data:image" not in (tmp_path / "b" / "report.html").read_text()


def test_an_unreadable_video_is_counted_and_named(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    for video in videos.rglob("*.mp4"):
        copy = tmp_path / video.relative_to(videos)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(video.read_bytes())
    (tmp_path / "dark" / "1.mp4").write_bytes(b"no video")
    report, answers = evaluate(model, tmp_path)
    assert (report["num_videos"], report["num_unreadable"]) == (5, 1)
    assert report["unreadable"][0]["video"] == "dark/1.mp4"
    write_report(tmp_path / "out", report, answers)
    assert load_predictions(tmp_path / "out").unreadable == report["unreadable"]


def test_labels_the_model_does_not_know_are_named(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "running" / "0.mp4"
    copy.parent.mkdir()
    copy.write_bytes((videos / "dark" / "0.mp4").read_bytes())
    with pytest.raises(
        UserError, match="labels the model .* was not trained on: running .*it knows: bright, dark"
    ):
        evaluate(model, tmp_path)


def test_an_absent_split_is_an_error(videos: Path, model: Path) -> None:
    with pytest.raises(UserError, match="no samples in split 'test'"):
        evaluate(model, videos, EvaluateOptions(split="test"))


def test_unseen_needs_a_model_that_can(videos: Path, model: Path) -> None:
    with pytest.raises(UserError, match="--unseen needs a model with a label-embedding head"):
        evaluate(model, videos, EvaluateOptions(unseen=True))


def test_saved_answers_of_two_models_are_compared_on_the_same_videos(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    report, answers = evaluate(model, videos)
    assert answers is not None
    write_report(tmp_path / "a", report, answers)
    answers.probs = torch.eye(2)[torch.tensor(answers.labels)]
    write_report(tmp_path / "b", report_of(answers), answers)
    result = compare_predictions(tmp_path / "a", tmp_path / "b")
    assert result["num_videos"] == 6
    assert result["top1_b"] == 1.0
    assert result["only_b"] == 6 - round(6 * report["top1"])


def test_answers_without_a_common_video_cannot_be_compared(
    videos: Path, model: Path, tmp_path: Path
) -> None:
    report, answers = evaluate(model, videos)
    assert answers is not None
    write_report(tmp_path / "a", report, answers)
    answers.videos = [f"other/{video}" for video in answers.videos]
    write_report(tmp_path / "b", report, answers)
    with pytest.raises(UserError, match="no video in common"):
        compare_predictions(tmp_path / "a", tmp_path / "b")


def test_a_run_that_was_not_evaluated_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no predictions\.jsonl there or in evaluation/; run 'marey evaluate"
    ):
        load_predictions(tmp_path)


def test_a_model_of_frame_features_is_scored_by_its_own_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = gat_youtube8m_mini()
    render_youtube8m_mini(tmp_path / "data", shards=1, videos={"train": 8, "validate": 6})
    config = replace(
        base,
        data=replace(base.data, path=str(tmp_path / "data")),
        train=replace(base.train, max_steps=1, batch_size=4, device="cpu", tensorboard=False),
    )
    result = train(config, tmp_path / "run", quiet=True)
    devices = []
    real = evaluation.make_accelerator

    def noted(config: TrainConfig) -> Accelerator:
        devices.append(config.train.device)
        return real(config)

    monkeypatch.setattr(evaluation, "make_accelerator", noted)
    report, answers = evaluate(
        tmp_path / "run", tmp_path / "data", EvaluateOptions(device="cuda:0")
    )
    assert devices == ["auto"]
    assert answers is None
    assert (report["task"], report["main"], report["num_samples"]) == ("features", "gap", 6)
    assert report["gap"] == pytest.approx(result.metrics["gap"])
    write_report(tmp_path / "out", report, answers)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["task"] == "features"

    # One damaged record is left out and named.
    shard = tmp_path / "data" / "validate0000.tfrecord"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    shard.write_bytes(damaged)
    report, _ = evaluate(tmp_path / "run", tmp_path / "data")
    assert (report["num_samples"], report["num_unreadable"]) == (5, 1)
    assert "validate0000.tfrecord" in report["unreadable"][0]
    assert devices == ["auto", "cpu"]


def test_the_report_says_which_share_is_answered_well(videos: Path, model: Path) -> None:
    _, answers = evaluate(model, videos)
    assert answers is not None
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55], [0.3, 0.7], [0.4, 0.6]])
    stated = replace(answers, probs=probs, labels=[0, 0, 1, 1, 1, 0])
    report = report_of(stated)
    # By confidence: .9 right, .8 right, .7 right, .6 wrong, .6 wrong, .55 right.
    found = report["answers_at_95"]
    assert found == pytest.approx({"coverage": 0.5, "accuracy": 1.0, "threshold": 0.7})
    assert report["aurc"] == pytest.approx((0 + 0 + 0 + 0.25 + 0.4 + 2 / 6) / 6)
    nothing = report_of(replace(stated, labels=[1, 1, 0, 0, 0, 1]))
    assert nothing["answers_at_95"] is None


def test_a_stored_threshold_is_said_beside_every_answer(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path, videos: Path, model: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    _, answers = evaluate(model, videos)
    assert answers is not None
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.45, 0.55], [0.3, 0.7], [0.4, 0.6]])
    stated = replace(answers, probs=probs, labels=[0, 0, 1, 1, 1, 0])
    found = store_rejection(folder, stated, "mine", target_accuracy=1.0)
    assert found["threshold"] == pytest.approx(0.7)
    assert found["data"] == "mine"

    prediction = Predictor.load(folder)(day_and_night)
    sure = prediction.trust["probability"] >= 0.7
    assert prediction.trust["rejected"] is not sure
    assert prediction.trust["rejection"]["num_videos"] == 6
    assert load_checkpoint(folder).temperature == 2.0  # what was there stays

    with pytest.raises(UserError, match="trained on all of these"):
        store_rejection(folder, replace(stated, seen=[True] * 6), "mine", min_coverage=0.5)
    with pytest.raises(UserError, match="folder of a checkpoint"):
        store_rejection(tmp_path, stated, "mine", min_coverage=0.5)
