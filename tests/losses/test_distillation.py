"""Distillation by hand."""

from __future__ import annotations

import math

import pytest
import torch

from marey.errors import UserError
from marey.losses.distillation import distillation_loss


def test_the_loss_is_the_scaled_divergence_from_the_teacher() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2) at T = 1: 3/4 ln(3/2) + 1/4 ln(1/2)."""
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(distillation_loss(student, teacher, 1.0)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation_loss(2 * student, 2 * teacher, 2.0)) == pytest.approx(
        4 * expected, rel=1e-5
    )
    assert float(distillation_loss(teacher, teacher)) == pytest.approx(0, abs=1e-7)


def test_the_gradient_keeps_its_size_when_the_temperature_changes() -> None:
    norms = []
    for temperature in (2.0, 8.0):
        student = torch.tensor([[0.2, -0.1, 0.0]], requires_grad=True)
        distillation_loss(student, torch.tensor([[0.5, 0.1, -0.3]]), temperature).backward()
        norms.append(float(student.grad.norm()))
    assert 0.7 < norms[0] / norms[1] < 1.4


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="the student has 2 classes, the teacher 3"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(UserError, match="temperature must be above 0, got 0"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), 0)
