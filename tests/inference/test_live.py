"""Answers to a stream: when they come, what they remember, how much they keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from marey.checkpoints.folder import load_folder
from marey.errors import UserError
from marey.inference.live import watch
from marey.inference.poses import PosePredictor
from marey.inference.predictor import Predictor
from marey.persons.sources import pose_finder


def stream(seconds: float, fps: int = 20, change_at: float = 3.0) -> Iterator[tuple[float, Tensor]]:
    for i in range(int(seconds * fps)):
        yield (
            i / fps,
            torch.full((3, 40, 40), 235 if i / fps < change_at else 20, dtype=torch.uint8),
        )


def test_answers_come_every_step_once_a_window_is_full(tiny_checkpoint: Path) -> None:
    answers = list(
        watch(Predictor.load(tiny_checkpoint), stream(4), window_seconds=1, step_seconds=0.5)
    )
    assert [answer["seconds"] for answer in answers] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert answers[0]["predictions"][0]["label"] == "bright"


def test_smoothing_delays_the_change_and_none_forgets_at_once(tiny_checkpoint: Path) -> None:
    predictor = Predictor.load(tiny_checkpoint)

    def first_dark(smoothing: float) -> float:
        answers = watch(
            predictor, stream(9), window_seconds=1, step_seconds=0.25, smoothing=smoothing
        )
        return next(a["seconds"] for a in answers if a["predictions"][0]["label"] == "dark")

    assert first_dark(0.0) < first_dark(0.85)


def test_unusable_settings_are_named(tiny_checkpoint: Path) -> None:
    predictor = Predictor.load(tiny_checkpoint)
    with pytest.raises(UserError, match=r"smoothing 1 is outside \[0, 1\)"):
        next(watch(predictor, stream(3), smoothing=1))
    with pytest.raises(UserError, match="must both be positive"):
        next(watch(predictor, stream(3), step_seconds=0))


def test_people_are_followed_through_a_stream_and_nobody_is_said(
    tiny_pose_checkpoint: Path, draw
) -> None:
    predictor = PosePredictor(load_folder(tiny_pose_checkpoint), finder=pose_finder("movenet"))

    def frames() -> Iterator[tuple[float, Tensor]]:
        somebody, nobody = draw([(60, 30, 170)]), draw([])
        for i in range(46):  # 20 a second, of which half are looked at
            yield i / 20, somebody if i <= 20 else nobody

    looked: list[float] = []
    look = predictor.finder.look
    predictor.finder.look = lambda *given: looked.append(0.0) or look(*given)
    answers = list(watch(predictor, frames(), window_seconds=1, step_seconds=1))
    assert [answer["predictions"][0]["label"] for answer in answers] == ["walk", "no person"]
    assert len(answers[0]["persons"]) == 1
    assert answers[1]["persons"] == []
    assert len(looked) == 23

    slow = ((i / 4, draw([(60, 30, 170)])) for i in range(6))
    (answer,) = watch(predictor, slow, window_seconds=1, step_seconds=1)
    assert (answer["predictions"], answer["unknown"]) == ([], True)
    assert "4.0 frames a second could be looked at" in answer["note"]
