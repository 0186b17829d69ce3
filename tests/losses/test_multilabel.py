from __future__ import annotations

import math

import pytest
import torch

from marey.errors import UserError
from marey.losses.multilabel import multilabel_loss


def test_the_loss_is_worked_by_hand():
    logits, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    by_hand = [math.log(2), math.log(4)]  # -log 1/2, -log(1 - 3/4)
    assert multilabel_loss(logits, targets).item() == pytest.approx(sum(by_hand) / 2)
    assert multilabel_loss(logits, targets, "sum").item() == pytest.approx(sum(by_hand))


def test_another_number_of_classes_is_refused():
    with pytest.raises(UserError, match="build the model with num_classes as the label space has"):
        multilabel_loss(torch.zeros(2, 3), torch.zeros(2, 4))
