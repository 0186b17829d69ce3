"""Stability under three mild corruptions, on a model whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from marey.inference.stability import MILD, stability
from marey.video.clip import Clip


def brightness(clips: Sequence[Tensor]) -> Tensor:
    """Probabilities of "dark" and "light" by the mean level of all frames."""
    light = torch.cat(list(clips)).float().mean() / 255 - 0.5
    return (torch.stack([-light, light]) * 20).softmax(-1)


def answer_at(level: int) -> dict:
    frames = torch.full((4, 3, 40, 50), level, dtype=torch.uint8)
    clip = Clip(
        frames=frames,
        frame_indices=(0, 1, 2, 3),
        frame_seconds=(0.0, 0.1, 0.2, 0.3),
        fps=10.0,
        path="x",
    )
    return stability([clip], brightness, ("dark", "light"))


def test_a_clear_answer_is_kept_by_all_three() -> None:
    result = answer_at(30)
    assert result["kept"] == 1.0
    assert set(result["corruptions"]) == {change.name for change in MILD}
    assert result["lowest_probability"] > 0.9


def test_an_answer_at_the_border_falls_to_brightness() -> None:
    result = answer_at(118)  # 118 + 25 is light
    assert result["corruptions"]["brightness"]["label"] == "light"
    assert result["corruptions"]["jpeg_compression"]["label"] == "dark"
    assert result["kept"] < 1.0
    assert result["lowest_probability"] < 0.5


def test_it_repeats() -> None:
    assert answer_at(100) == answer_at(100)


def test_a_given_answer_is_followed_and_the_model_not_asked_again() -> None:
    frames = torch.full((4, 3, 40, 50), 30, dtype=torch.uint8)
    clip = Clip(
        frames=frames,
        frame_indices=(0, 1, 2, 3),
        frame_seconds=(0.0, 0.1, 0.2, 0.3),
        fps=10.0,
        path="x",
    )
    asked = []

    def counting(clips: Sequence[Tensor]) -> Tensor:
        asked.append(len(clips))
        return brightness(clips)

    result = stability([clip], counting, ("dark", "light"), answer=1)
    assert len(asked) == len(MILD)
    assert (result["kept"], result["lowest_probability"] < 0.1) == (0.0, True)
