from __future__ import annotations

import math

import pytest
import torch

from marey.losses.detection import action_loss, box_loss, detection_loss


def test_action_loss_by_hand():
    logits, labels = torch.zeros(2, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    assert action_loss(logits, labels).item() == pytest.approx(3 * math.log(2))
    logits = torch.tensor([[2.0, -1.0]])
    value = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))
    assert action_loss(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(value)


def test_background_is_one_more_logistic_loss_wanted_where_no_person_is():
    zero, labels = torch.zeros(2, 1), torch.zeros(2, 1)
    confident = torch.tensor([-20.0, 20.0])
    right = action_loss(zero, labels, confident, torch.tensor([True, False]))
    wrong = action_loss(zero, labels, confident, torch.tensor([False, True]))
    assert right.item() == pytest.approx(math.log(2), abs=1e-4)
    assert wrong.item() == pytest.approx(math.log(2) + 20, abs=1e-4)


def test_only_positive_boxes_pull_and_all_boxes_divide():
    deltas = torch.tensor([[0.5, 0, 0, 0], [9.0, 9, 9, 9]], requires_grad=True)
    loss = box_loss(deltas, torch.zeros(2, 4), torch.tensor([True, False]))
    assert loss.item() == pytest.approx(0.5 * 0.25 / 2)  # quadratic below 1, two boxes
    loss.backward()
    assert deltas.grad[1].abs().sum() == 0
    assert (
        box_loss(torch.full((1, 4), 3.0), torch.zeros(1, 4), torch.tensor([True])).item() == 10
    )  # 4 x (3 - 0.5)


def test_class_specific_deltas_learn_for_true_classes_only():
    deltas = torch.zeros(1, 3, 4, requires_grad=True)
    box_loss(deltas, torch.ones(1, 4), torch.tensor([True]), torch.tensor([[0.0, 1, 0]])).backward()
    assert deltas.grad[0, 1].abs().sum() > 0
    assert deltas.grad[0, [0, 2]].abs().sum() == 0
    with pytest.raises(ValueError, match="need labels"):
        box_loss(deltas, torch.ones(1, 4), torch.tensor([True]))


@pytest.mark.parametrize("count", [0, 3])
def test_images_without_persons_leave_every_term_finite(count):
    logits = torch.zeros(count, 2, requires_grad=True)
    deltas = torch.zeros(count, 4, requires_grad=True)
    terms = detection_loss(
        {
            "logits": logits,
            "box_deltas": deltas,
            "proposal_labels": torch.zeros(count, 2),
            "is_positive": torch.zeros(count, dtype=torch.bool),
            "box_delta_targets": torch.zeros(count, 4),
        }
    )
    assert all(torch.isfinite(term) for term in terms.values())
    sum(terms.values()).backward()
    assert torch.isfinite(logits.grad).all()
    assert terms["box"].item() == 0


def test_the_order_of_boxes_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(5, 3, generator=generator),
        torch.rand(5, 3, generator=generator).round(),
    )
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(
        action_loss(logits, labels), action_loss(logits[order], labels[order])
    )
