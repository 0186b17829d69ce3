from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.persons.boxes import FilePersons
from marey.persons.nanodet import NanoDetPersons
from marey.persons.sources import PosedPersons, person_finder, pose_finder


def test_every_name_builds_its_finder(tmp_path):
    (tmp_path / "boxes.csv").write_text("clip,0001,0.1,0.2,0.3,0.4,,0.9\n")
    assert person_finder("own") is None
    assert isinstance(person_finder("nanodet"), NanoDetPersons)
    assert isinstance(person_finder("auto"), PosedPersons)
    assert isinstance(person_finder(str(tmp_path / "boxes.csv")), FilePersons)
    assert pose_finder("movenet").detector is None
    assert isinstance(pose_finder("auto").detector, NanoDetPersons)


def test_an_unknown_name_is_one_line_with_the_known_ones():
    with pytest.raises(UserError, match="unknown source of persons 'hogg'; did you mean 'hog'"):
        person_finder("hogg")
    with pytest.raises(UserError, match="unknown source of persons 'mvnet'"):
        pose_finder("mvnet")
    with pytest.raises(UserError, match="own are the boxes of a detection model"):
        pose_finder("own")


@pytest.mark.parametrize("source", ["auto", "movenet", "nanodet"])
def test_the_bundled_finders_agree_on_a_drawn_person(draw, source):
    boxes, scores = person_finder(source)(draw([(90, 30, 200)]), "", 0.0)
    assert boxes.shape == (1, 4)
    np.testing.assert_allclose(boxes[0, [1, 3]] * 256, [30, 230], atol=15)
    assert scores[0] > 0.25


def test_boxes_of_a_file_get_poses(draw, tmp_path):
    (tmp_path / "boxes.csv").write_text("clip,0001,0.3,0.1,0.75,0.92,,0.9\n")
    finder = pose_finder(str(tmp_path / "boxes.csv"), threads=1)
    frame = draw([(90, 30, 200)])
    people = finder.look(frame, *finder.propose(frame, "clip.mp4", 1.0))
    np.testing.assert_allclose(people.boxes_xyxy_norm, [[0.3, 0.1, 0.75, 0.92]], atol=1e-6)
    assert people.keypoints[0, :, 2].mean() > 0.4


def test_a_frame_without_anybody_gives_empty_boxes():
    boxes, scores = person_finder("auto")(torch.zeros(3, 64, 64, dtype=torch.uint8), "", 0.0)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)
