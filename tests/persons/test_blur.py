from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.persons.blur import HOLD_SECONDS, Blur, head_region, person_region


def detail(frame, box):
    """Mean difference of neighbouring pixels inside a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    patch = frame[:, top:bottom, left:right].float()
    return float(patch.diff(dim=1).abs().mean() + patch.diff(dim=2).abs().mean())


def textured(draw, people):
    """A frame with noise on it, so that blurring shows."""
    frame = draw(people).short()
    noise = torch.randint(-12, 13, frame.shape, generator=torch.Generator().manual_seed(0))
    return (frame + noise).clamp(0, 255).byte()


def test_faces_are_blurred_and_nothing_else(draw, auto):
    frame = textured(draw, [(90, 30, 200)])
    out = Blur("faces", auto)(frame, 0.0)
    head, feet = (124, 36, 144, 52), (100, 190, 150, 225)
    assert detail(out, head) < 0.3 * detail(frame, head)
    assert torch.equal(out[:, 190:225], frame[:, 190:225])
    assert detail(out, feet) == detail(frame, feet)


def test_whole_persons_are_blurred_and_the_background_stays(draw, auto):
    frame = textured(draw, [(90, 30, 200)])
    out = Blur("persons", auto)(frame, 0.0)
    body = (115, 60, 150, 200)
    assert detail(out, body) < 0.3 * detail(frame, body)
    assert torch.equal(out[:, :, :50], frame[:, :, :50])


def test_somebody_lost_stays_blurred_for_a_moment(draw, auto):
    blur = Blur("persons", auto)
    blur(draw([(90, 30, 200)]), 0.0)
    empty = textured(draw, [])
    assert not torch.equal(blur(empty, 0.1), empty)
    assert torch.equal(blur(empty, 0.1 + 2 * HOLD_SECONDS), empty)


def test_a_head_without_keypoints_is_the_top_of_the_box():
    keypoints = np.zeros((17, 3), np.float32)
    region = head_region(keypoints, np.array([10.0, 20, 60, 220]))
    assert region[0] == pytest.approx(35 - 24)
    assert region[1] == pytest.approx(20)
    assert region[3] - region[1] == pytest.approx(48)


def test_a_head_spans_its_keypoints():
    keypoints = np.zeros((17, 3), np.float32)
    keypoints[[3, 4]] = [[100, 50, 0.9], [140, 50, 0.9]]
    region = head_region(keypoints, np.array([80.0, 20, 160, 220]))
    assert region[0] < 100
    assert region[2] > 140
    assert (region[1] + region[3]) / 2 == pytest.approx(50)


def test_a_region_at_the_edge_of_the_frame_is_cut(draw, auto):
    frame = textured(draw, [(-10, 30, 200), (200, 60, 300)])
    assert Blur("persons", auto)(frame, 0.0).shape == frame.shape
    np.testing.assert_allclose(person_region(np.array([0.0, 0, 10, 100])), [-0.8, -8, 10.8, 108])


def test_an_unknown_kind_is_one_line(auto):
    with pytest.raises(UserError, match="unknown kind of blur 'face'; did you mean 'faces'"):
        Blur("face", auto)
