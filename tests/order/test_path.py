from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.losses.order import order_signs
from marey.metrics.order import order_accuracy
from marey.order.path import beam_path, hamiltonian_path, oriented_path, sorted_path
from marey.order.permutations import all_permutations, random_permutations


def path_weight(weights, paths):
    """Sum of weights[i, j] over the steps i -> j of each path: (P,) for weights (T, T), paths (P,
    T)."""
    return weights[paths[:, :-1], paths[:, 1:]].sum(dim=1)


def test_a_path_worked_by_hand():
    weights = torch.tensor(
        [[[9.0, 1, 5], [3, 9, 0], [2, 4, 9]]]
    )  # 0->2->1 weighs 9, the diagonal does not count
    path, total = hamiltonian_path(weights)
    assert path.tolist() == [[0, 2, 1]]
    assert total.tolist() == [9.0]


def test_the_exact_path_is_the_heaviest_of_all_40320():
    weights = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    path, total = hamiltonian_path(weights)
    for index in range(6):
        brute = path_weight(weights[index], all_permutations(8))
        assert total[index] == pytest.approx(float(brute.max()), abs=1e-12)
        assert path[index].tolist() == all_permutations(8)[brute.argmax()].tolist()


def test_one_batch_equals_one_at_a_time():
    weights = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(1))
    together, _ = hamiltonian_path(weights)
    assert together.tolist() == [hamiltonian_path(one[None])[0][0].tolist() for one in weights]


def test_the_true_signs_give_back_the_chronological_order():
    order = random_permutations(20, 9, torch.Generator().manual_seed(2))
    path, total = hamiltonian_path(order_signs(order))
    assert torch.equal(path, order.argsort(dim=1))
    assert (total == 8).all()


def test_renaming_the_nodes_renames_the_path():
    weights = torch.randn(1, 7, 7, generator=torch.Generator().manual_seed(3))
    rename = torch.randperm(7, generator=torch.Generator().manual_seed(4))
    path, _ = hamiltonian_path(weights)
    renamed, _ = hamiltonian_path(weights[:, rename][:, :, rename])
    assert rename[renamed].tolist() == path.tolist()


def test_sixteen_frames_are_exact_and_longer_clips_take_the_beam():
    order = random_permutations(2, 16, torch.Generator().manual_seed(5))
    noise = 0.1 * torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(6))
    assert torch.equal(
        hamiltonian_path(order_signs(order) + noise)[0].sort().values,
        torch.arange(16).expand(2, -1),
    )
    order = random_permutations(2, 40, torch.Generator().manual_seed(7))
    assert torch.equal(hamiltonian_path(order_signs(order))[0], order.argsort(dim=1))


def test_a_wide_beam_is_exact_and_a_narrow_one_never_heavier():
    weights = torch.randn(8, 8, 8, generator=torch.Generator().manual_seed(8))
    _, best = hamiltonian_path(weights)
    wide_path, wide = beam_path(weights, width=280)  # 8 * C(7, 3)
    assert torch.allclose(wide, best)
    assert torch.allclose(path_weight(weights[0].double(), wide_path[:1]), wide[:1])
    _, narrow = beam_path(weights, width=2)
    assert (narrow <= best + 1e-12).all()


def test_equal_weights_give_some_whole_path():
    for T in (2, 8, 20):
        path, total = hamiltonian_path(torch.zeros(3, T, T))
        assert torch.equal(path.sort(dim=1).values, torch.arange(T).expand(3, -1))
        assert (total == 0).all()


def test_bad_weights_are_named():
    weights = torch.zeros(2, 4, 4)
    weights[1, 2, 3] = torch.nan
    with pytest.raises(
        UserError, match="attention of clip 1 has 1 values of 16 that are NaN or infinite"
    ):
        hamiltonian_path(weights)
    with pytest.raises(UserError, match="a clip of 1 frame has no order to recover"):
        hamiltonian_path(torch.zeros(1, 1, 1))
    with pytest.raises(UserError, match="drop the CLS column first"):
        hamiltonian_path(torch.zeros(1, 4, 5))


def test_sorting_uses_every_pair_and_beats_the_path_where_weights_are_noisy():
    order = random_permutations(300, 8, torch.Generator().manual_seed(9))
    assert torch.equal(sorted_path(order_signs(order))[0], order.argsort(dim=1))
    noisy = order_signs(order) + 4 * torch.randn(
        300, 8, 8, generator=torch.Generator().manual_seed(10)
    )
    by_path = order_accuracy(hamiltonian_path(noisy)[0], order).mean()
    by_sorting = order_accuracy(sorted_path(noisy)[0], order).mean()
    assert by_sorting > by_path + 0.02


def test_an_oriented_path_has_neighbours_by_distance_and_direction_by_weight():
    places = torch.tensor([[2.0], [0.0], [3.0], [1.0]])  # time 0, 1, 2, 3 is node 1, 3, 0, 2
    distances = torch.cdist(places, places)[None]
    truth = torch.tensor([[1, 3, 0, 2]])
    weights = torch.zeros(1, 4, 4)
    weights[0, 1, 2] = 1.0  # all that is known: node 1 comes before node 2
    path, total = oriented_path(weights, distances)
    assert torch.equal(path, truth)
    assert total.item() == 1.0
    backwards, _ = oriented_path(weights.transpose(1, 2), distances)
    assert torch.equal(backwards, truth.flip(1))
    # the heaviest path of the same matrix knows no neighbours
    assert not torch.equal(hamiltonian_path(weights)[0], truth)
