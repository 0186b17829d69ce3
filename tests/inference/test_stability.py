"""Stability under three mild corruptions, on a predictor whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from marey.inference.stability import MILD, stability
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip
from marey.video.sampling import ClipSampling


class BrightnessPredictor:
    """Answers "light" above a mean level, like `marey.Predictor` does everything else."""

    class_names = ("dark", "light")
    preprocess = Preprocess(sampling=ClipSampling(kind="uniform", num_frames=4), short_side=36, image_size=32,
                            mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def outputs(self, views: Tensor) -> dict[str, Tensor]:
        light = views.mean((1, 2, 3, 4)) - 0.5
        return {"logits": torch.stack([-light, light], 1) * 20}

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


def answer_at(level: int) -> dict:
    frames = torch.full((4, 3, 40, 50), level, dtype=torch.uint8)
    clip = Clip(frames=frames, frame_indices=(0, 1, 2, 3), frame_seconds=(0.0, 0.1, 0.2, 0.3), fps=10.0, path="x")
    predictor = BrightnessPredictor()
    probabilities = predictor.probabilities(predictor.outputs(predictor.preprocess.clip(frames))["logits"]).mean(0)
    prediction = SimpleNamespace(probabilities=probabilities, class_names=predictor.class_names, clips=(clip,))
    return stability(predictor, prediction)  # type: ignore[arg-type]


def test_a_clear_answer_is_kept_by_all_three() -> None:
    result = answer_at(30)
    assert result["kept"] == 1.0
    assert set(result["corruptions"]) == {change.name for change in MILD}
    assert result["lowest_probability"] > 0.9


def test_an_answer_at_the_border_falls_to_brightness() -> None:
    result = answer_at(118)                                                 # 118 + 25 is light
    assert result["corruptions"]["brightness"]["label"] == "light"
    assert result["corruptions"]["jpeg_compression"]["label"] == "dark"
    assert result["kept"] < 1.0
    assert result["lowest_probability"] < 0.5


def test_it_repeats() -> None:
    assert answer_at(100) == answer_at(100)
