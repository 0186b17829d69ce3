"""An objective is a sum of terms from one forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.training.task import Batch, Objective, Outputs, check_terms


class Scaled(nn.Module):
    """A term: a multiple of the mean output."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, outputs: Outputs, batch: Batch) -> Tensor:
        return self.factor * outputs["logits"].mean()


class Counting(Objective):
    """Counts the forward passes."""

    passes = 0

    def call_model(self, model, batch, names, return_attention):
        self.passes += 1
        return {"logits": model(batch["clip"])}


def objective(**weights: float) -> Counting:
    terms = {name: Scaled(factor) for name, factor in (("class", 1.0), ("order", 2.0))}
    return Counting(weights, terms)


def test_all_terms_come_from_one_forward_pass_and_are_unweighted() -> None:
    sum_of_two, model = objective(order=0.5, **{"class": 3.0}), nn.Linear(2, 2)
    outputs, terms = sum_of_two(model, {"clip": torch.ones(1, 2)})
    mean = outputs["logits"].mean()
    assert sum_of_two.passes == 1
    assert list(terms) == ["class", "order"]  # in the order of the terms, not of the weights
    torch.testing.assert_close(terms["order"], 2 * mean)
    torch.testing.assert_close(sum_of_two.total(terms), 4 * mean)


def test_a_term_of_weight_zero_is_not_computed() -> None:
    _, terms = objective(order=0.0, **{"class": 1.0})(nn.Linear(2, 2), {"clip": torch.ones(1, 2)})
    assert list(terms) == ["class"]


def test_evaluation_computes_the_class_term_alone() -> None:
    both = objective(order=1.0, **{"class": 1.0})
    _, terms = both(nn.Linear(2, 2).eval(), {"clip": torch.ones(1, 2)})
    assert list(terms) == ["class"]


def test_terms_that_a_task_has_not_are_named() -> None:
    check_terms({"class": 1.0, "adversarial": 1.0}, ("class",))
    with pytest.raises(
        UserError, match="loss term in objective.weights 'clas'; did you mean 'class'"
    ):
        check_terms({"clas": 1.0}, ("class",))
