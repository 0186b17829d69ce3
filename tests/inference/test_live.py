"""Answers to a stream: when they come, what they remember, how much they keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from marey.errors import UserError
from marey.inference.live import watch
from marey.inference.predictor import Predictor


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
