from __future__ import annotations

import itertools

import pytest
import torch

from marey.errors import UserError
from marey.metrics.order import (
    chance_order_accuracy,
    chance_up_to_direction,
    longest_increasing_run,
    mean_with_interval,
    order_accuracy,
    order_measures,
    partitions,
    standard_tableaux,
)
from marey.order.permutations import all_permutations


def naive_common_subsequence(first, second):
    """Longest common subsequence by the textbook recursion."""
    best = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            best[i + 1][j + 1] = best[i][j] + 1 if a == b else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


@pytest.mark.parametrize(
    ("o", "o_hat", "expected"),
    [
        ([4, 0, 1, 7, 3, 5, 2, 6], [4, 0, 1, 7, 3, 5, 2, 6], 1.0),
        ([4, 0, 1, 7, 3, 5, 2, 6], [6, 2, 5, 3, 7, 1, 0, 4], 0.125),
        ([0, 1, 2, 3, 4, 5, 6, 7], [4, 0, 1, 7, 3, 5, 2, 6], 0.625),
        ([0, 1, 2, 3, 4, 5, 6, 7], [1, 0, 2, 3, 4, 5, 6, 7], 0.875),
        ([0, 1, 2, 3, 4, 5, 6, 7], [7, 0, 1, 2, 3, 4, 5, 6], 0.875),
    ],
)
def test_reference_examples(o, o_hat, expected):
    """The table lists two sequences compared with each other; as positions, the true path is the
    first one."""
    order = torch.tensor([o]).argsort(dim=1)
    assert order_accuracy(torch.tensor([o_hat]), order).tolist() == [expected]


def test_it_is_the_common_subsequence_of_the_path_with_argsort_of_the_order():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        path, order = torch.randperm(7, generator=generator), torch.randperm(7, generator=generator)
        naive = naive_common_subsequence(path.tolist(), order.argsort().tolist()) / 7
        assert float(order_accuracy(path[None], order[None])) == pytest.approx(naive)


def test_orientation_a_perfect_path_scores_one_and_against_the_order_itself_about_52_percent():
    orders = all_permutations(8)
    paths = orders.argsort(dim=1)
    assert (order_accuracy(paths, orders) == 1).all()
    against_itself = order_accuracy(paths, paths)  # truth taken as argsort(path) = o: the mistake
    assert float(against_itself.mean()) == pytest.approx(0.522, abs=2e-3)


def test_the_chance_level_is_the_mean_over_all_orders():
    for T in (2, 5, 8):
        brute = longest_increasing_run(all_permutations(T)).double().mean() / T
        assert chance_order_accuracy(T) == pytest.approx(float(brute))
    assert chance_order_accuracy(8) == pytest.approx(0.47129, abs=1e-5)
    exact, drawn = chance_order_accuracy(32), chance_order_accuracy(33)
    assert 0 < exact - drawn < 0.01


def test_partitions_and_tableaux_count_permutations():
    assert list(partitions(4)) == [(4,), (3, 1), (2, 2), (2, 1, 1), (1, 1, 1, 1)]
    assert [standard_tableaux(parts) for parts in partitions(4)] == [1, 3, 2, 3, 1]
    assert sum(standard_tableaux(parts) ** 2 for parts in partitions(6)) == len(
        list(itertools.permutations(range(6)))
    )


def test_bad_paths_are_named():
    with pytest.raises(UserError, match="a row of path is no permutation of 0..2"):
        order_accuracy(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(UserError, match=r"got \(1, 2\) and \(1, 3\)"):
        order_accuracy(torch.tensor([[0, 1]]), torch.tensor([[0, 1, 2]]))


def test_shuffles_of_a_clip_count_as_one_in_the_interval():
    values = torch.rand(40, generator=torch.Generator().manual_seed(0))
    mean, interval = mean_with_interval(values)
    repeated = mean_with_interval(values[:, None].expand(-1, 4))
    assert repeated[0] == pytest.approx(mean)
    assert repeated[1] == pytest.approx(interval)
    half = 2.02 * float(values.std()) / 40**0.5
    assert interval == pytest.approx((mean - half, mean + half), abs=0.01)


def test_the_measures_of_a_path_split_into_neighbours_and_direction():
    order = torch.arange(4).repeat(3, 1)
    path = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
    found = order_measures(path, order)
    assert found["order_accuracy"].tolist() == [1.0, 0.25, 0.5]
    assert found["up_to_direction"].tolist() == [1.0, 1.0, 0.5]
    assert found["direction_right"].tolist() == [1.0, 0.0, 0.5]


def test_the_better_of_a_random_path_and_its_reversal_is_above_chance_and_exact_for_three():
    # of the six orders of three frames two give 1 up to direction, the other four 2/3
    assert chance_up_to_direction(3) == pytest.approx((2 + 4 * 2 / 3) / 6, abs=0.01)
    assert chance_up_to_direction(8) == pytest.approx(0.548, abs=0.005)
