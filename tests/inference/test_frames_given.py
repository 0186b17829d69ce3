"""A predictor takes files, tensors, arrays, clips, and lists of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marey.errors import UserError
from marey.inference.predictor import Predictor
from marey.video.decode import open_video
from marey.video.encode import write_video


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint: Path) -> Predictor:
    loaded = Predictor.load(str(tiny_checkpoint))
    assert isinstance(loaded, Predictor)
    return loaded


def test_frames_are_taken_in_every_form(predictor: Predictor, tmp_path: Path) -> None:
    bright = torch.full((9, 3, 40, 50), 240, dtype=torch.uint8)
    dark = torch.full((4, 3, 40, 50), 10, dtype=torch.uint8)
    write_video(tmp_path / "a.mp4", bright, 10)
    with open_video(tmp_path / "a.mp4") as reader:
        clip = reader.frames_at(range(9))
    forms = (bright, bright.numpy(), bright.permute(0, 2, 3, 1).numpy(), clip, tmp_path / "a.mp4")
    for given in forms:
        assert predictor(given).top(1)[0][0] == "bright"
    answers = predictor([str(tmp_path / "a.mp4"), dark, clip])
    assert [answer.top(1)[0][0] for answer in answers] == ["bright", "dark", "bright"]
    batch = predictor(torch.stack([bright[:4], dark]))
    assert [answer.top(1)[0][0] for answer in batch] == ["bright", "dark"]


@pytest.mark.parametrize(
    "wrong", [torch.zeros(8, 3, 40, 50), torch.zeros(8, 40, 50, dtype=torch.uint8)]
)
def test_other_tensors_are_refused_by_name(predictor: Predictor, wrong: torch.Tensor) -> None:
    with pytest.raises(UserError, match="frames in memory are uint8 RGB"):
        predictor(wrong)


def test_a_clip_without_a_batch_is_refused_by_name(predictor: Predictor) -> None:
    with pytest.raises(UserError, match=r"a batch of clips, \(B, T, 3, H, W\), got \(4, 3, 32"):
        predictor.model(torch.zeros(4, 3, 32, 32))


def test_a_model_of_poses_takes_frames_and_lists_too(
    tiny_pose_checkpoint: Path, walkers: Path
) -> None:
    predictor = Predictor.load(str(tiny_pose_checkpoint))
    with open_video(walkers) as reader:
        clip = reader.frames_at(range(reader.num_frames))
    one, other = predictor([walkers, clip])
    assert one.top(1)[0][0] == other.top(1)[0][0]
    with pytest.raises(UserError, match="or a list of them, got int"):
        predictor(7)
