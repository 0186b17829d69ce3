"""Poor pictures are told from good ones, and said beside an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from marey.corruptions import corrupt
from marey.inference.condition import Condition, condition_of, with_condition
from marey.inference.picture_quality import noise, picture_quality
from marey.inference.prediction import Prediction
from marey.video.encode import write_video


def street(num_frames: int = 8, height: int = 240, width: int = 320) -> Tensor:
    """A moving scene with edges of every size, uint8 (T, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.zeros(3, height, width + 8 * num_frames)
    for side in (60, 20, 5):
        small = torch.rand(3, height // side + 1, scene.shape[2] // side + 1, generator=generator)
        large = small.repeat_interleave(side, 1).repeat_interleave(side, 2)
        scene += large[:, :height, : scene.shape[2]] * 80
    frames = [scene[:, :, 8 * t : 8 * t + width] for t in range(num_frames)]
    return torch.stack(frames).clamp(0, 255).to(torch.uint8)


def test_a_good_picture_has_no_flaw():
    assert picture_quality(street()).flaws == ()


@pytest.mark.parametrize(
    ("kind", "severity", "said"),
    [
        ("gaussian_noise", 3, "looks very noisy"),
        ("motion_blur", 5, "looks blurred"),
        ("defocus_blur", 5, "looks blurred"),
    ],
)
def test_what_is_wrong_is_named(kind, severity, said):
    generator = torch.Generator().manual_seed(0)
    changed = corrupt(street(), kind, severity=severity, generator=generator)
    assert said in picture_quality(changed).flaws


def test_a_picture_shown_again_and_again_stands_still():
    frames = street()
    assert picture_quality(frames[[0, 0, 0, 0, 4, 4, 6, 7]]).flaws == ("stands still for a while",)
    assert picture_quality(frames[[0, 1, 2, 3, 4, 5, 6, 6]]).flaws == ()
    assert picture_quality(frames[[0, 0, 0]]).flaws == ()  # too few to tell


@pytest.mark.parametrize("sigma", [5.0, 20.0])
def test_noise_is_measured_in_grey_levels(sigma):
    flat = torch.full((2, 1, 100, 100), 128.0)
    generator = torch.Generator().manual_seed(0)
    noisy = flat + sigma * torch.randn(flat.shape, generator=generator)
    assert noise(noisy).tolist() == pytest.approx([sigma, sigma], rel=0.03)


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (40, 9)])
def test_tiny_pictures_are_measured_too(size):
    assert picture_quality(torch.zeros(2, 3, *size, dtype=torch.uint8)).flaws == ()


def test_a_plain_wall_is_not_called_blurred():
    assert picture_quality(torch.full((8, 3, 120, 160), 90, dtype=torch.uint8)).blur == 0


def test_a_file_with_poor_pictures_gets_no_calibrated_answer(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    noisy = corrupt(street(16), "gaussian_noise", severity=5, generator=generator)
    write_video(tmp_path / "noisy.mp4", noisy, 8, crf=10)
    write_video(tmp_path / "good.mp4", street(16), 8)
    assert condition_of(tmp_path / "good.mp4").flaws == ()
    condition = condition_of(tmp_path / "noisy.mp4")
    assert condition.flaws == ("looks very noisy",)
    answer = Prediction(
        video="noisy.mp4",
        model="m",
        class_names=("a", "b"),
        frame_seconds=(0.0,),
        probabilities=torch.tensor([0.9, 0.1]),
        trust={"probability": 0.9, "calibrated": True, "unknown": False, "set": ["a"]},
        calibration={"temperature": 1.0},
    )
    trust = with_condition(answer, condition).trust
    assert trust["warning"] == "looks very noisy"
    assert trust["calibrated"] is False
    assert trust["unknown"] is None
    assert "set" not in trust


def test_what_the_model_warns_of_is_kept():
    answer = Prediction(
        video="v.mp4",
        model="m",
        class_names=("a", "b"),
        frame_seconds=(0.0,),
        probabilities=torch.tensor([0.9, 0.1]),
        trust={"warning": "looks damaged"},
    )
    poor = Condition(num_frames=9, still=False, damaged=None, flaws=("looks blurred",))
    assert with_condition(answer, poor).trust["warning"] == "looks blurred; looks damaged"
