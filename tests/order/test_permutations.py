from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.order.permutations import (
    RULES,
    all_permutations,
    check_permutations,
    load_permutations,
    make_permutation_set,
    random_permutations,
)


def naive_greedy(candidates, count, first, farthest):
    """The rule of the public generator, written out: mean Hamming distance to all chosen rows."""
    left = [list(row) for row in candidates]
    chosen = [left.pop(first)]
    while len(chosen) < count:
        means = [
            np.mean([[a != b for a, b in zip(row, old, strict=True)] for old in chosen])
            for row in left
        ]
        chosen.append(left.pop(int(np.argmax(means) if farthest else np.argmin(means))))
    return chosen


def test_all_permutations_come_in_lexicographic_order():
    assert all_permutations(3).tolist() == [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ]
    assert len(all_permutations(8).unique(dim=0)) == 40320


@pytest.mark.parametrize("rule", ["closest", "farthest"])
def test_the_greedy_rule_equals_the_naive_one(rule):
    chosen = make_permutation_set(30, 5, rule=rule, seed=3).tolist()
    candidates = all_permutations(5)[1:].tolist()
    assert chosen == naive_greedy(candidates, 30, candidates.index(chosen[0]), rule == "farthest")


@pytest.mark.parametrize(
    ("rule", "smallest", "mean", "largest"), [("closest", 2, 5.4552, 7), ("farthest", 2, 7.0070, 8)]
)
def test_a_thousand_of_eight_frames_have_the_reference_statistics_within_ten_seconds(
    rule, smallest, mean, largest
):
    started = time.process_time()
    distances = torch.pdist(make_permutation_set(1000, 8, rule=rule, seed=2).double(), p=0)
    assert time.process_time() - started < 10
    assert (distances.min(), distances.max()) == (smallest, largest)
    assert distances.mean() == pytest.approx(mean, abs=5e-4)


@pytest.mark.parametrize("rule", RULES)
def test_sets_are_distinct_valid_without_identity_and_repeat_with_the_seed(rule):
    rows = make_permutation_set(119, 5, rule=rule, seed=1)
    check_permutations(rows, 5)
    assert not (rows == torch.arange(5)).all(dim=1).any()
    assert torch.equal(rows, make_permutation_set(119, 5, rule=rule, seed=1))


def test_longer_clips_choose_from_a_seeded_pool():
    rows = make_permutation_set(50, 16, seed=4)
    check_permutations(rows, 16)
    assert torch.equal(rows, make_permutation_set(50, 16, seed=4))
    loose = torch.pdist(make_permutation_set(50, 16, rule="random", seed=4).double(), p=0).mean()
    assert torch.pdist(rows.double(), p=0).mean() < loose


def test_more_permutations_than_there_are_is_an_error():
    with pytest.raises(
        UserError, match="24 permutations asked for, but 4 frames have 23 besides the identity"
    ):
        make_permutation_set(24, 4)
    with pytest.raises(UserError, match="chosen from 100000 candidates"):
        make_permutation_set(100_001, 12)
    with pytest.raises(UserError, match="a clip of 1 frame has no order to learn"):
        make_permutation_set(1, 1)
    with pytest.raises(UserError, match="unknown permutation rule 'nearest'"):
        make_permutation_set(5, 4, rule="nearest")


def test_broken_sets_are_named_by_row():
    with pytest.raises(UserError, match=r"row 1 is \[0, 0, 1\], expected each of 0..2 once"):
        check_permutations(torch.tensor([[0, 1, 2], [0, 0, 1]]))
    with pytest.raises(UserError, match=r"rows 0 and 2 are both \[2, 1, 0\]"):
        check_permutations(torch.tensor([[2, 1, 0], [1, 0, 2], [2, 1, 0]]))
    with pytest.raises(UserError, match="have 3 frames, but the model takes clips of 8"):
        check_permutations(torch.tensor([[2, 1, 0]]), 8)
    with pytest.raises(UserError, match="expected whole numbers of shape"):
        check_permutations(torch.rand(3, 3))


@pytest.mark.parametrize("base", [0, 1])
def test_the_released_layout_loads_from_zero_or_one_based_fortran_files(tmp_path, base):
    rows = make_permutation_set(30, 8, rule="farthest")
    np.save(tmp_path / "permutations_30_8.npy", np.asfortranarray(rows.numpy() + base))
    assert torch.equal(load_permutations(tmp_path / "permutations_30_8.npy", 8), rows)
    with_identity = load_permutations(tmp_path / "permutations_30_8.npy", identity_first=True)
    assert with_identity.shape == (31, 8)
    assert with_identity[0].tolist() == list(range(8))


def test_a_file_that_is_no_set_is_refused_and_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"objects.npy: not a .npy file of whole numbers"):
        load_permutations(tmp_path / "objects.npy")
    np.save(tmp_path / "floats.npy", np.ones((3, 3)))
    with pytest.raises(UserError, match="got float64"):
        load_permutations(tmp_path / "floats.npy")


def test_random_permutations_cover_all_of_them_evenly():
    rows = random_permutations(6000, 3, torch.Generator().manual_seed(0))
    _, counts = rows.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 850
