from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.persons.poses import (
    FramePoses,
    PoseFinder,
    tile_windows,
    window_around,
    without_duplicates,
)

LEFT_SHOULDER, LEFT_ANKLE, NOSE = 5, 15, 0


def frame_poses(boxes, scores=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    keypoints = np.ones((len(boxes), 17, 3), np.float32)
    keypoints[..., :2] = middle[:, None] + np.linspace(-0.05, 0.05, 17)[:, None]
    scores = np.ones(len(boxes), np.float32) if scores is None else np.array(scores, np.float32)
    return FramePoses(
        keypoints=keypoints,
        boxes_xyxy_norm=boxes,
        scores=scores,
        detector_scores=np.zeros_like(scores),
    )


class Boxes:
    """A detector that always answers the same."""

    def __init__(self, boxes, scores):
        self.boxes, self.scores = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores)

    def __call__(self, frame, video, seconds):
        return self.boxes, self.scores


def test_a_person_is_found_upright_where_drawn(draw, movenet):
    people = movenet(draw([(90, 30, 200)])[None])[0]
    assert len(people) == 1
    np.testing.assert_allclose(people.boxes_xyxy_norm[0, [1, 3]] * 256, [30, 230], atol=15)
    heights = people.keypoints[0, [NOSE, LEFT_SHOULDER, LEFT_ANKLE], 1]
    assert (np.diff(heights) > 0.05).all()
    assert people.keypoints[0, :, 2].mean() > 0.4


def test_frames_are_looked_at_each_by_itself(draw, movenet):
    frames = torch.stack([draw([(90, 30, 200)]), draw([]), draw([(20, 30, 200)])])
    together = movenet(frames)
    assert [len(people) for people in together] == [1, 0, 1]
    alone = movenet(frames[2:])[0]
    np.testing.assert_array_equal(together[2].keypoints, alone.keypoints)


@pytest.mark.parametrize("size", [(240, 320), (320, 240), (480, 360), (90, 160), (256, 256)])
def test_every_shape_of_frame_gives_shares_of_width_and_height(draw, movenet, size):
    H, W = size
    people = movenet(draw([(0.4 * W, 0.1 * H, 0.8 * H)], size=size)[None])[0]
    assert len(people) == 1
    assert people.boxes_xyxy_norm[0, 1] == pytest.approx(0.1, abs=0.06)
    assert people.boxes_xyxy_norm[0, 3] == pytest.approx(0.9, abs=0.06)
    np.testing.assert_allclose(people.keypoints[0, LEFT_ANKLE, 1], 0.85, atol=0.08)


@pytest.mark.parametrize(
    "frame",
    [
        torch.zeros(3, 240, 320, dtype=torch.uint8),
        torch.full((3, 240, 320), 255, dtype=torch.uint8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 4, 900, dtype=torch.uint8),
        torch.randint(0, 256, (3, 240, 320), dtype=torch.uint8),
    ],
    ids=["black", "white", "tiny", "thin", "noise"],
)
def test_nobody_is_found_where_nobody_is(auto, frame):
    assert len(auto(frame[None])[0]) == 0


def test_thirty_people_are_found_and_their_number_is_bounded(draw, auto):
    rows = [(20 + 120 * (i % 10), 20 + 220 * (i // 10), 200) for i in range(30)]
    frame = draw(rows, size=(720, 1280))[None]
    assert len(auto(frame)[0]) >= 27
    few = PoseFinder(max_people=5, threads=1)
    assert len(few(frame)[0]) == 5


def test_a_torso_is_a_person(draw, auto):
    people = auto(draw([(60, 60, 420)])[None])[0]
    assert len(people) == 1
    assert people.keypoints[0, LEFT_SHOULDER, 2] > people.keypoints[0, LEFT_ANKLE, 2]


def test_people_of_16_pixels_need_tiles(draw, movenet):
    frame = draw([(300, 170, 16), (100, 100, 20)], size=(360, 640))[None]
    assert len(movenet(frame)[0]) == 0
    tiled = PoseFinder(tiles=3, threads=1)
    people = tiled(frame)[0]
    assert len(people) == 2
    np.testing.assert_allclose(sorted(people.boxes_xyxy_norm[:, 0] * 640), [100, 300], atol=6)


def test_a_second_look_finds_whom_the_whole_frame_did_not_show(draw, movenet):
    frame = draw([(300, 170, 24)], size=(360, 640))
    assert len(movenet(frame[None])[0]) == 0
    box = [300 / 640, 170 / 360, 312 / 640, 194 / 360]
    finder = PoseFinder(Boxes(box, [0.4]), threads=1)
    people = finder(frame[None])[0]
    assert len(people) == 1
    assert people.scores[0] > 0.25 + 0.5 * 0.4
    inside = people.keypoints[0, :, 0] * 640
    assert ((inside > 290) & (inside < 325)).all()


def test_a_proposal_without_a_pose_is_nobody(draw):
    finder = PoseFinder(Boxes([0.1, 0.1, 0.3, 0.6], [0.4]), threads=1)
    assert len(finder(draw([])[None])[0]) == 0


def test_a_trusted_box_stays_as_it_is_with_or_without_a_pose(draw):
    boxes = [[0.35, 0.1, 0.65, 0.9], [0.0, 0.0, 0.2, 0.3]]
    finder = PoseFinder(Boxes(boxes, [0.9, 0.1]), trust_detector=True, threads=1)
    people = finder(draw([(90, 30, 200)])[None])[0]
    np.testing.assert_allclose(people.boxes_xyxy_norm, boxes)
    np.testing.assert_allclose(people.scores, [0.9, 0.1])
    assert people.keypoints[0, :, 2].mean() > 0.4
    np.testing.assert_allclose(people.keypoints[1], np.tile([0.1, 0.15, 0], (17, 1)), atol=1e-6)


def test_the_best_of_two_finds_of_one_person_stays():
    people = frame_poses(
        [[0.1, 0.1, 0.3, 0.9], [0.11, 0.1, 0.31, 0.9], [0.6, 0.1, 0.8, 0.9]], [0.5, 0.8, 0.6]
    )
    kept = without_duplicates(people, aspect=1.0)
    np.testing.assert_allclose(kept.scores, [0.8, 0.6])


def test_tiles_cover_the_frame_and_overlap():
    windows = list(tile_windows(100, 200, tiles=2))
    assert windows[0] == (0, 0, 200, 100)
    assert len(windows) == 5
    covered = np.zeros((100, 200), int)
    for left, top, right, bottom in windows[1:]:
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1
    assert covered.max() == 4
    assert list(tile_windows(100, 200, tiles=1)) == [(0, 0, 200, 100)]


def test_a_window_maps_back_to_the_frame_and_is_black_outside():
    frame = torch.full((3, 50, 60), 200, dtype=torch.uint8)
    frame[:, 10, 20] = 0
    picture, scale, corner = window_around(frame, np.array([15.0, 5, 25, 15]), 1.0, 10)
    assert scale == 1
    np.testing.assert_allclose(corner, [15, 5])
    assert picture[0, 5, 5] == 0

    picture, scale, corner = window_around(frame, np.array([-10.0, -10, 10, 10]), 1.0, 20)
    assert (picture[:, :10] == 0).all()
    assert (picture[:, 10:, 10:] == 200).all()
    assert picture.shape == (3, 20, 20)


def test_a_window_wholly_outside_is_black():
    frame = torch.full((3, 50, 60), 200, dtype=torch.uint8)
    picture, _, _ = window_around(frame, np.array([100.0, 100, 120, 130]), 1.4, 32)
    assert picture.shape == (3, 32, 32)
    assert (picture == 0).all()


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="image_size is a multiple of 32, got 250"):
        PoseFinder(image_size=250)
    with pytest.raises(UserError, match="max_people and tiles are at least 1, got 30 and 0"):
        PoseFinder(tiles=0)
