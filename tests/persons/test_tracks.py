from __future__ import annotations

import torch

from marey.persons.tracks import link_persons, link_similarity


def boxes(*lefts, top=0.0):
    return torch.tensor([[left, top, left + 10, top + 30] for left in lefts]).reshape(-1, 4)


def test_people_who_pass_each_other_keep_their_numbers():
    walk = [boxes(0, 100), boxes(6, 94), boxes(12, 88)]
    assert link_persons(walk, [0, 1, 2]) == [[1, 2], [1, 2], [1, 2]]
    swapped = [walk[0], walk[1].flip(0), walk[2]]
    assert link_persons(swapped, [0, 1, 2]) == [[1, 2], [2, 1], [1, 2]]


def test_a_jump_of_less_than_a_height_is_the_same_person_and_further_is_a_new_one():
    assert link_persons([boxes(0), boxes(25)], [0, 1]) == [[1], [1]]
    assert link_persons([boxes(0), boxes(40)], [0, 1]) == [[1], [2]]


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
        torch.tensor([[0.0, 0, 10, 30]]), torch.tensor([[0.0, 0, 30, 90], [0, 0, 12, 30]])
    )
    assert torch.isinf(similarity[0, 0])
    assert similarity[0, 1] > 0.8
