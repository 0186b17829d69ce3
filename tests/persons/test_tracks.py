from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.persons.tracks import Tracker, assign, link_persons, link_similarity


def boxes(*lefts, top=0.0):
    rows = [[left, top, left + 10, top + 30] for left in lefts]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_people_who_pass_each_other_keep_their_numbers():
    walk = [boxes(0, 100), boxes(6, 94), boxes(12, 88)]
    assert link_persons(walk, [0, 1, 2]) == [[1, 2], [1, 2], [1, 2]]
    swapped = [walk[0], walk[1].flip(0), walk[2]]
    assert link_persons(swapped, [0, 1, 2]) == [[1, 2], [2, 1], [1, 2]]


def test_a_jump_of_less_than_a_height_is_the_same_person_and_further_is_a_new_one():
    assert link_persons([boxes(0), boxes(25)], [0, 1]) == [[1], [1]]
    assert link_persons([boxes(0), boxes(40)], [0, 1]) == [[1], [2]]


def test_the_shorter_the_time_the_shorter_the_jump():
    assert link_persons([boxes(0), boxes(25)], [0, 0.1]) == [[1], [2]]
    assert link_persons([boxes(0), boxes(15)], [0, 0.1]) == [[1], [1]]


def test_someone_hidden_for_a_moment_comes_back_and_after_long_is_new():
    gone = [boxes(0), boxes(), boxes(2)]
    assert link_persons(gone, [0, 1, 2]) == [[1], [], [1]]
    assert link_persons(gone, [0, 4, 8]) == [[1], [], [2]]


def test_numbers_are_unique_within_a_moment_and_overlap_beats_nearness():
    numbers = link_persons([boxes(0, 12), boxes(1, 5, 13)], [0, 1])
    assert numbers[1][0] == 1
    assert numbers[1][2] == 2
    assert len(set(numbers[1])) == 3


def test_a_box_of_another_size_is_not_the_same_person():
    similarity = link_similarity(
        np.array([[0.0, 0, 10, 30]]),
        np.array([[0.0, 0, 30, 90], [0, 0, 12, 30]]),
        np.array([1.0]),
    )
    assert np.isneginf(similarity[0, 0])
    assert similarity[0, 1] > 0.8


def test_the_best_sum_wins_where_the_best_pair_would_leave_a_bad_one():
    similarity = np.array([[0.6, 0.65], [0.1, 0.6]])
    assert assign(similarity) == [(0, 0), (1, 1)]


def test_forbidden_pairs_are_never_made_but_as_many_others_as_possible():
    assert assign(np.array([[0.5, -np.inf], [0.9, -np.inf]])) == [(1, 0)]
    assert assign(np.array([[0.9, -0.9], [0.5, -np.inf]])) == [(0, 1), (1, 0)]
    assert assign(np.full((2, 3), -np.inf)) == []


@pytest.mark.parametrize("fps", [12.5, 25])
def test_two_people_who_walk_through_each_other_keep_their_numbers_by_their_movement(fps):
    tracker = Tracker()
    for frame in range(round(2 * fps)):
        seconds = frame / fps
        x = np.array([40 * seconds, 80 - 40 * seconds])
        now = np.stack([x, [0, 0], x + 10, [30, 30]], axis=1).astype(np.float32)
        order = [0, 1] if frame % 2 else [1, 0]
        numbers = tracker.update(now[order], seconds)
        if frame == 0:
            first = dict(zip(order, numbers, strict=True))
        # in the middle both have the same box, and no answer is wrong
        if abs(x[0] - x[1]) > 1:
            assert dict(zip(order, numbers, strict=True)) == first


def test_clothes_tell_who_is_who_after_both_were_hidden():
    red, blue = np.eye(128, dtype=np.float32)[:2]
    apart = boxes(0, 20).numpy()
    tracker = Tracker()
    assert tracker.update(apart, 0.0, colours=np.stack([red, blue])) == [1, 2]
    tracker.update(boxes().numpy(), 0.5, colours=np.zeros((0, 128), np.float32))
    moved = boxes(9, 11).numpy()
    assert tracker.update(moved, 1.0, colours=np.stack([blue, red])) == [2, 1]


def test_poses_tell_who_is_who_in_equal_boxes():
    generator = np.random.default_rng(0)
    standing, bending = generator.random((2, 17, 3)).astype(np.float32) * [10, 30, 1]
    same = boxes(0, 0).numpy()
    tracker = Tracker()
    keypoints = np.stack([standing, bending]).astype(np.float32)
    assert tracker.update(same, 0.0, keypoints=keypoints) == [1, 2]
    assert tracker.update(same, 0.1, keypoints=keypoints[::-1]) == [2, 1]


def test_the_expected_box_moves_on_and_only_for_a_moment():
    tracker = Tracker()
    for frame in range(10):
        tracker.update(boxes(2 * frame).numpy(), frame / 10)
    number, box = tracker.expected(1.0)[0]
    assert number == 1
    assert box[0] == pytest.approx(20, abs=0.5)
    assert tracker.expected(2.0) == []


def test_numbers_are_never_used_again():
    tracker = Tracker(max_gap_seconds=1)
    assert tracker.update(boxes(0).numpy(), 0.0) == [1]
    assert tracker.update(boxes(0).numpy(), 5.0) == [2]
    assert tracker.update(boxes(0, 100).numpy(), 5.1) == [2, 3]


def meeting(tracker, *, swapped=False):
    """Two people meet, are seen as one for two seconds, and part again; returns their numbers."""
    red, blue = np.eye(128, dtype=np.float32)[:2]
    mixed = (red + blue) / 2
    for frame in range(10):
        now = boxes(frame, 30 - frame).numpy()
        start = tracker.update(now, frame / 10, colours=np.stack([red, blue]))
    for frame in range(10, 30):
        tracker.update(boxes(14).numpy(), frame / 10, colours=mixed[None])
    for frame in range(30, 40):
        now = boxes(15 - (frame - 30), 15 + (frame - 30)).numpy()
        colours = [blue, red] if swapped else [red, blue]
        end = tracker.update(now, frame / 10, colours=np.stack(colours))
    return start, end


def test_two_who_hug_keep_their_numbers_afterwards():
    start, end = meeting(Tracker())
    assert end == start == [1, 2]


def test_two_who_change_sides_in_a_hug_are_told_by_their_clothes():
    start, end = meeting(Tracker(), swapped=True)
    assert start == [1, 2]
    assert end == [2, 1]


def test_somebody_hidden_goes_along_with_who_hides_them():
    tracker = Tracker()
    for frame in range(10):
        tracker.update(boxes(frame, 30 - 2 * frame).numpy(), frame / 10)
    # five seconds and more than a body height as one
    for frame in range(10, 60):
        tracker.update(boxes(frame).numpy(), frame / 10)
    assert sorted(tracker.update(boxes(54, 64).numpy(), 6.0)) == [1, 2]


def test_a_touching_person_does_not_teach_wrong_colours():
    red, blue = np.eye(128, dtype=np.float32)[:2]
    tracker = Tracker()
    tracker.update(boxes(0, 30).numpy(), 0.0, colours=np.stack([red, blue]))
    for frame in range(1, 20):
        tracker.update(boxes(0, 4).numpy(), 1.5 + frame / 10, colours=np.stack([blue, blue]))
    first = next(track for track in tracker.tracks if track.number == 1)
    np.testing.assert_array_equal(first.colours, red)
