from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.inference.crop_detector import CROP_SIDE, CropDetector, cut_out
from marey.inference.load import load_detector
from marey.persons.pose_tracks import PoseTrack
from marey.video.clip import Clip


def track(boxes_xyxy: list[list[float]]) -> PoseTrack:
    """A person at 0, 0.5, 1 ... s, in these boxes, in frame heights."""
    T = len(boxes_xyxy)
    return PoseTrack(
        number=1,
        frame_indices=np.arange(T),
        seconds=np.arange(T) / 2,
        keypoints=np.zeros((T, 17, 3), np.float32),
        boxes_xyxy=np.array(boxes_xyxy, np.float32),
        scores=np.ones(T, np.float32),
        observed=np.ones(T, bool),
    )


def clip(frames: torch.Tensor, seconds: tuple[float, ...]) -> Clip:
    return Clip(
        frames=frames,
        frame_indices=tuple(range(len(frames))),
        frame_seconds=seconds,
        fps=2.0,
        path="x",
    )


def test_the_square_follows_the_person_s_way_through_the_window_and_no_other_time() -> None:
    frames = torch.zeros(2, 3, 100, 200, dtype=torch.uint8)
    frames[:, 0, 40:60, 20:60] = 255  # where the person is at 0 and 0.5 s
    frames[:, 1, :, 150:] = 255  # where the person is at 1 s
    person = track([[0.2, 0.4, 0.4, 0.6], [0.4, 0.4, 0.6, 0.6], [1.5, 0.0, 2.0, 1.0]])
    crops = cut_out(clip(frames, (0.0, 0.5)), person)
    assert crops.shape == (2, 3, CROP_SIDE, CROP_SIDE)
    assert int(crops[:, 1].max()) == 0
    # a square of 52 pixels around 40 x 20: red fills 40 / 52 of its width
    assert float((crops[0, 0] > 128).any(0).float().mean()) == pytest.approx(40 / 52, abs=0.03)
    assert float((crops[0, 0] > 128).any(1).float().mean()) == pytest.approx(20 / 52, abs=0.03)


def test_what_lies_outside_the_picture_is_black() -> None:
    frames = torch.full((1, 3, 100, 100), 200, dtype=torch.uint8)
    crops = cut_out(clip(frames, (0.0,)), track([[0.0, 0.0, 0.5, 0.5]]))
    assert int(crops[0, 0, 2, 2]) == 0
    assert int(crops[0, 0, -3, -3]) == 200


def test_an_own_model_is_asked_about_everybody_alone(tiny_checkpoint: Path, walkers: Path) -> None:
    detector = load_detector(tiny_checkpoint)
    assert type(detector) is CropDetector
    found = detector(walkers)
    assert found.class_names == ("bright", "dark")
    assert len(found.moments) == 2
    for moment in found.moments:
        assert len(moment.persons) == 2
        assert len({person.probabilities for person in moment.persons}) == 2
        for person in moment.persons:
            assert sum(person.probabilities) == pytest.approx(1.0, abs=1e-4)
    assert found.to_dict(2)["tracks"]


def test_own_boxes_and_a_wrong_spacing_are_named(tiny_checkpoint: Path, walkers: Path) -> None:
    with pytest.raises(UserError, match="no boxes of its own"):
        load_detector(tiny_checkpoint, persons="own")
    with pytest.raises(UserError, match="above 0"):
        load_detector(tiny_checkpoint)(walkers, every_seconds=0)
