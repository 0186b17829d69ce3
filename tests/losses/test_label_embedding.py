"""The label-embedding loss by hand, and why it is scaled."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.losses.label_embedding import label_embedding_loss


def test_mse_is_the_squared_distance_and_cosine_ignores_length() -> None:
    predicted = torch.tensor([[0.6, 0.8], [0.0, 2.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert label_embedding_loss(predicted, labels) == pytest.approx(((0.4**2 + 0.8**2) + 1.0) / 2)
    assert label_embedding_loss(predicted, labels, "cosine") == pytest.approx((0.4 + 0.0) / 2)


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_the_gradient_does_not_shrink_with_the_width(kind: str) -> None:
    """The plain mean over E would shrink it 100 times from E = 10 to E = 1000."""
    norms = []
    for width in (10, 1000):
        generator = torch.Generator().manual_seed(0)
        predicted = torch.nn.functional.normalize(
            torch.randn(4, width, generator=generator), dim=-1
        ).requires_grad_()
        labels = torch.nn.functional.normalize(torch.randn(4, width, generator=generator), dim=-1)
        label_embedding_loss(predicted, labels, kind).backward()
        norms.append(float(predicted.grad.norm()))
    assert 0.5 < norms[0] / norms[1] < 2


def test_the_right_label_gives_zero_and_unknown_kinds_are_named() -> None:
    table = torch.eye(3)
    assert label_embedding_loss(table[[2, 0]], table[[2, 0]]) == 0
    with pytest.raises(UserError, match="unknown label loss 'mae'; did you mean 'mse'"):
        label_embedding_loss(table, table, "mae")
