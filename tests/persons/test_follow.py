from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.persons.follow import DETECT_EVERY_SECONDS, DetectorTurns, Follower, follow
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.video.decode import open_video


class Counted:
    """A detector that counts its calls."""

    def __init__(self, box):
        self.calls, self.box = 0, box

    def __call__(self, frame, video, seconds):
        self.calls += 1
        return torch.tensor(self.box).reshape(-1, 4), torch.full((len(self.box),), 0.4)


def test_the_detector_is_asked_a_few_times_a_second_and_tracks_stand_in_between(draw):
    box = [[300 / 640, 170 / 360, 312 / 640, 194 / 360]]
    detector = Counted(box)
    follower = Follower(PoseFinder(detector, threads=1))
    frame = draw([(300, 170, 24)], size=(360, 640))
    frames = [follower(frame, i, i / 12.5) for i in range(7)]
    assert detector.calls == 1 + int(6 / 12.5 / DETECT_EVERY_SECONDS)
    assert [found.numbers for found in frames] == [(1,)] * 7


@pytest.mark.parametrize("threads", [1, 2])
def test_the_detector_is_asked_as_often_as_a_reader_wants(walkers, threads):
    with open_video(walkers) as reader:
        indices = range(0, reader.num_frames, 3)  # 0.24 s apart
        span = reader.frame_seconds[indices[-1]]
        for every in (0.2, 0.5):
            detector = Counted([[0.45, 0.45, 0.5, 0.56]])
            finder = PoseFinder(detector, threads=threads)
            list(follow(reader, indices, finder, detect_every_seconds=every))
            step = 0.24 * np.ceil(every / 0.24)
            assert detector.calls == 1 + int(span / step)


def test_a_person_who_left_is_not_kept_by_the_expectation(draw):
    follower = Follower(PoseFinder(Counted([[0.45, 0.45, 0.5, 0.56]]), threads=1))
    follower.finder.detector.box = [[300 / 640, 170 / 360, 312 / 640, 194 / 360]]
    there = follower(draw([(300, 170, 24)], size=(360, 640)), 0, 0.0)
    follower.finder.detector.box = []
    gone = follower(draw([], size=(360, 640)), 1, 0.1)
    assert len(there.people) == 1
    assert len(gone.people) == 0


def test_frames_of_a_video_come_back_with_times_and_numbers(walkers, auto):
    with open_video(walkers) as reader:
        found = list(follow(reader, [0, 2, 5, 6, 20], auto))
    assert [frame.frame_index for frame in found] == [0, 2, 5, 6, 20]
    np.testing.assert_allclose([frame.seconds for frame in found][:3], [0, 0.16, 0.4], atol=1e-6)
    assert all(sorted(frame.numbers) == [1, 2] for frame in found)


def test_no_identity_is_swapped_when_people_walk_past_each_other(walkers, auto):
    with open_video(walkers) as reader:
        found = list(follow(reader, range(25), auto))
    heights = {1: [], 2: []}
    for frame in found:
        for number, box in zip(frame.numbers, frame.people.boxes_xyxy_norm, strict=True):
            heights[number].append(box[3] - box[1])
    first, second = (np.array(heights[number]) for number in (1, 2))
    assert first.min() > second.max() or second.min() > first.max()


@pytest.mark.parametrize("name", ["hug/set1_seq03_014.avi", "push/set2_seq11_002.avi"])
def test_two_real_people_are_two_tracks_from_beginning_to_end(shared_dir, auto, name):
    with open_video(shared_dir / "data" / "ut_interaction" / name) as reader:
        found = list(follow(reader, range(0, reader.num_frames, 2), auto))
    ends = [
        {n for frame in part for n in frame.numbers if frame.numbers}
        for part in (found[:5], found[-5:])
    ]
    assert ends[0] == ends[1] == {1, 2}


def test_frames_looked_at_beforehand_change_no_answer(walkers):
    one, three = (pose_finder("auto", threads=threads) for threads in (1, 3))
    with open_video(walkers) as reader:
        indices = range(0, reader.num_frames, 2)
        expected, found = (list(follow(reader, indices, finder)) for finder in (one, three))
    assert len(expected) == len(indices)
    for first, second in zip(expected, found, strict=True):
        assert (first.frame_index, first.numbers) == (second.frame_index, second.numbers)
        np.testing.assert_array_equal(first.people.keypoints, second.people.keypoints)
        np.testing.assert_array_equal(first.people.detector_scores, second.people.detector_scores)


def test_the_detector_is_never_asked_twice_at_a_time_and_in_the_order_of_frames(walkers):
    asked, busy = [], threading.Lock()

    def detector(frame, video, seconds):
        assert busy.acquire(blocking=False)
        asked.append(seconds)
        busy.release()
        return torch.zeros(0, 4), torch.zeros(0)

    with open_video(walkers) as reader:
        list(follow(reader, range(25), PoseFinder(detector, threads=4)))
        seconds = reader.frame_seconds[:25]
    turns = DetectorTurns(PoseFinder(detector, threads=1))
    assert asked == [second for second in seconds if turns(second)]


def test_an_error_while_looking_ahead_reaches_the_reader(walkers):
    def detector(frame, video, seconds):
        raise UserError("no such box")

    with open_video(walkers) as reader, pytest.raises(UserError, match="no such box"):
        list(follow(reader, range(25), PoseFinder(detector, threads=2)))
