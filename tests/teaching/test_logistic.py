"""Logistic regression against a direct minimisation in all features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from marey.teaching.regression import Regression
from marey.teaching.ridge import standardise


def examples(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(12) % 3
    values = torch.randn(12, 2, 30, generator=generator)
    values[..., :3] += 2 * F.one_hot(labels, 3)[:, None]
    return values, labels


def test_the_span_of_the_rows_loses_nothing():
    values, labels = examples()
    found = Regression("logistic", values, labels, 3, [30])
    logits = found.logits(values, 0.1)

    rows = standardise(values.flatten(0, 1), [30])(values.flatten(0, 1))
    weight = torch.zeros(30, 3, dtype=torch.double, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = F.cross_entropy(rows @ weight + bias, labels.repeat_interleave(2))
        value = value + 0.5 * 0.1 * weight.pow(2).sum() / len(rows)
        value.backward()
        return value

    search.step(loss)
    expected = (rows @ weight + bias).detach().unflatten(0, (12, 2)).mean(1)
    assert_close(logits, expected, atol=1e-2, rtol=1e-2)


def test_the_linear_map_of_raw_features_gives_the_same_logits():
    values, labels = examples()
    found = Regression("logistic", values, labels, 3, [10, 20])
    weight, bias = found.linear(0.01)
    assert_close(
        values.double().mean(1) @ weight.T + bias,
        found.logits(values, 0.01),
        atol=1e-6,
        rtol=0,
    )


def test_a_strong_penalty_answers_the_shares_of_classes():
    values, labels = examples()
    probs = Regression("logistic", values, labels, 3, [30]).logits(values, 1e6).softmax(-1)
    assert_close(probs, torch.full_like(probs, 1 / 3), atol=1e-3, rtol=0)
