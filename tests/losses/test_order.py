from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.losses.order import (
    graded_loss,
    graded_order,
    guided_loss,
    order_loss,
    order_signs,
    position_shortcut,
)
from marey.order.path import hamiltonian_path
from marey.order.permutations import all_permutations, make_permutation_set, random_permutations


def naive_guided_loss(attention_time, order):
    """Eq. 13 with its four sums written out, the mean over heads and clips added."""
    total, count = 0.0, 0
    for weights in attention_time:
        B, N, heads, T, columns = weights.shape
        for b in range(B):
            for s in range(N):
                for head in range(heads):
                    for t in range(T):
                        for u in range(T):
                            sigma = 1 if order[b, t] < order[b, u] else -1
                            total += (1 - float(weights[b, s, head, t, u + columns - T])) * sigma
                            count += 1
    return total / count


def random_attention(seed, columns=4):
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.rand(3, 2, 2, 4, columns, generator=generator) - 1 for _ in range(2)]


def test_signs_worked_by_hand():
    order = torch.tensor([2, 0, 1])
    assert order_signs(order).tolist() == [[-1, -1, -1], [1, -1, 1], [1, -1, -1]]
    assert order_signs(order, "released").tolist() == [[1, -1, -1], [-1, 1, 1], [-1, 1, 1]]


def test_paper_signs_are_antisymmetric_off_the_diagonal_and_released_signs_symmetric():
    order = random_permutations(10, 6, torch.Generator().manual_seed(0))
    off = 1 - torch.eye(6)
    paper, released = order_signs(order), order_signs(order, "released")
    assert torch.equal(paper * off, -paper.transpose(1, 2) * off)
    assert torch.equal(released, released.transpose(1, 2))
    assert (paper.diagonal(dim1=1, dim2=2) == -1).all()
    assert (released.diagonal(dim1=1, dim2=2) == 1).all()


@pytest.mark.parametrize("columns", [4, 5])
def test_the_guided_loss_is_equation_13_without_the_cls_column(columns):
    attention, order = (
        random_attention(0, columns),
        random_permutations(3, 4, torch.Generator().manual_seed(1)),
    )
    assert float(guided_loss(attention, order)) == pytest.approx(
        naive_guided_loss(attention, order), abs=1e-6
    )
    if columns == 5:
        assert float(guided_loss([w[..., 1:] for w in attention], order)) == pytest.approx(
            float(guided_loss(attention, order)), abs=1e-6
        )


def test_the_guided_loss_of_known_attention():
    """a = sigma: off the diagonal (1-1)(1) + (1+1)(-1) = -2 per pair, on it (1+1)(-1) = -2: T=4
    gives -(6*2+4*2)/16."""
    order = torch.tensor([[3, 1, 0, 2]])
    sigma = order_signs(order)[:, None, None]
    assert float(guided_loss([sigma], order)) == -1.25
    assert float(guided_loss([-sigma], order)) == 0.75  # pairs: 2*1 + 0, diagonal: (1-1)(-1) = 0
    assert float(guided_loss([sigma], order, mask_diagonal=True)) == -1.0
    assert float(guided_loss([torch.ones(1, 1, 1, 4, 4)], order)) == 0.0


def test_the_true_direction_is_its_minimum_by_gradient():
    order = torch.tensor([[2, 0, 1]])
    weights = torch.zeros(1, 1, 1, 3, 3, requires_grad=True)
    guided_loss([weights], order).backward()
    assert torch.allclose(weights.grad[0, 0, 0], -order_signs(order)[0] / 9)


def test_the_shortcut_of_a_set_is_what_attention_by_position_alone_gains():
    assert position_shortcut(all_permutations(4)) == pytest.approx(0.0, abs=1e-7)
    assert position_shortcut(torch.tensor([[2, 0, 1]])) == 1.0
    rows = make_permutation_set(31, 6)
    by_place = order_signs(rows).mean(dim=0).sign()  # one map for every permutation
    weights = by_place.expand(len(rows), 2, 1, 6, 6)
    blind = guided_loss([torch.zeros_like(weights)], rows, mask_diagonal=True)
    guided = guided_loss([weights], rows, mask_diagonal=True)
    assert position_shortcut(rows) == pytest.approx(float(blind - guided), abs=1e-6)
    assert position_shortcut(rows) > 2 * position_shortcut(
        make_permutation_set(31, 6, rule="farthest")
    )


def test_the_guided_loss_follows_the_frames_and_ignores_the_order_of_clips():
    attention, order = (
        random_attention(2),
        random_permutations(3, 4, torch.Generator().manual_seed(3)),
    )
    value = float(guided_loss(attention, order))
    rename = torch.tensor([2, 0, 3, 1])
    renamed = [w[..., rename, :][..., rename] for w in attention]
    assert float(guided_loss(renamed, order[:, rename])) == pytest.approx(value, abs=1e-6)
    assert float(guided_loss([w.flip(0) for w in attention], order.flip(0))) == pytest.approx(
        value, abs=1e-6
    )
    assert float(guided_loss(attention, order[:, rename])) != pytest.approx(value, abs=1e-4)


def test_the_guided_loss_may_be_negative_and_half_precision_is_averaged_in_float32():
    order = torch.tensor([[0, 1, 2]])
    value = guided_loss([order_signs(order)[:, None, None].to(torch.bfloat16)], order)
    assert float(value) < 0
    assert value.dtype == torch.float32


def test_bad_attention_is_named():
    with pytest.raises(UserError, match="return_attention=True"):
        guided_loss([], torch.tensor([[0, 1]]))
    with pytest.raises(
        UserError, match=r"shape \(3, 2, 2, 4, 4\) does not fit permutations of 8 frames"
    ):
        guided_loss(random_attention(0), torch.arange(8)[None])
    with pytest.raises(
        UserError, match="permutation index 31 does not fit an order head of 31 classes"
    ):
        order_loss(torch.zeros(2, 31), torch.tensor([3, 31]))
    with pytest.raises(UserError, match="unknown sign matrix 'papers'"):
        order_signs(torch.tensor([0, 1]), "papers")


def test_the_graded_target_falls_with_the_distance_and_its_only_heaviest_path_is_the_order():
    target = graded_order(torch.tensor([2, 0, 1]))
    hand = [[0.0, -0.5, -1.0], [0.5, 0.0, 1.0], [1.0, -1.0, 0.0]]
    assert target.tolist() == hand
    order = random_permutations(20, 8, torch.Generator().manual_seed(0))
    graded, signs = graded_order(order), order_signs(order)
    path, total = hamiltonian_path(graded)
    assert torch.equal(order.gather(1, path), torch.arange(8).expand(20, 8))
    # of the paper's signs the order is one of many: a longer step weighs as much
    neighbours_apart = order.argsort(1)[:, [0, 2, 4, 6, 7]]
    steps = signs[torch.arange(20)[:, None], neighbours_apart[:, :-1], neighbours_apart[:, 1:]]
    assert bool((steps == 1).all())
    assert total.tolist() == pytest.approx([7.0] * 20)


def test_the_graded_loss_is_0_at_its_target_and_the_gradient_leads_there():
    order = random_permutations(4, 8, torch.Generator().manual_seed(1))
    target = graded_order(order)[:, None, None].expand(-1, 3, 2, -1, -1)
    cls = torch.full((4, 3, 2, 8, 1), 9.0)
    at_target = graded_loss([target, torch.cat((cls, target), -1)], order)
    assert float(at_target) == pytest.approx(0, abs=1e-10)
    zero = torch.zeros(4, 3, 2, 8, 8, requires_grad=True)
    loss = graded_loss([zero], order)
    assert float(loss.detach()) == pytest.approx(0.5714, abs=1e-4)
    loss.backward()
    assert bool((zero.grad * target <= 0).all())
    with pytest.raises(UserError, match="needs temporal attention, got none"):
        graded_loss([], order)
