"""Conformal prediction sets: scores and thresholds worked by hand, coverage by simulation."""

from __future__ import annotations

import math

import pytest
import torch

from marey.metrics.conformal import (
    aps_scores,
    conformal_threshold,
    fixed_top_k,
    prediction_sets,
    set_measures,
)

PROBS = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])


def test_aps_scores_by_hand() -> None:
    expected = [[0.25, 0.9, 0.65], [0.85, 0.4, 0.95]]
    assert aps_scores(PROBS) == pytest.approx(torch.tensor(expected, dtype=torch.double))


def test_raps_adds_a_penalty_per_rank() -> None:
    found = aps_scores(PROBS, penalty=0.1, free=1)[0]
    assert found.tolist() == pytest.approx([0.25, 1.1, 0.75])


def test_the_threshold_by_hand() -> None:
    scores = torch.arange(1.0, 10.0)  # 9 scores: ceil(10 * 0.9) = the 9th
    assert conformal_threshold(scores, 0.9) == 9.0
    assert conformal_threshold(scores, 0.5) == 5.0
    assert conformal_threshold(scores[:8], 0.9) == math.inf


def test_every_group_weighs_alike() -> None:
    # Of 3/4: half for the group of one, a quarter each for the other two; 1/4 stays at infinity.
    scores, groups = torch.tensor([1.0, 2.0, 3.0]), ["a", "b", "b"]
    assert conformal_threshold(scores, 0.37, groups) == 1.0
    assert conformal_threshold(scores, 0.5, groups) == 2.0
    assert conformal_threshold(scores, 0.74, groups) == 3.0
    assert conformal_threshold(scores, 0.8, groups) == math.inf


def test_sets_by_hand() -> None:
    inside = prediction_sets(PROBS, 0.7)
    assert inside.tolist() == [[True, False, True], [False, True, False]]
    measures = set_measures(inside, torch.tensor([2, 0]))
    assert measures["coverage"] == 0.5
    assert measures["mean_size"] == 1.5
    assert measures["per_class"] == [0.0, None, 1.0]
    assert prediction_sets(PROBS, 0.0).sum(1).tolist() == [1, 1]
    assert bool(prediction_sets(PROBS, math.inf).all())


def test_sets_cover_what_they_promise() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    probs = (3 * logits).softmax(1)  # overconfident, which the threshold makes up for
    own = aps_scores(probs).gather(1, labels[:, None])[:, 0]
    threshold = conformal_threshold(own[:2000], 0.9)
    measures = set_measures(prediction_sets(probs[2000:], threshold), labels[2000:])
    assert 0.88 <= measures["coverage"] <= 0.93
    # A model without knowledge needs nearly all classes for that.
    blind = torch.full((2000, 5), 0.2)
    assert fixed_top_k(probs[2000:], labels[2000:], 0.9) < 5
    assert set_measures(prediction_sets(blind, 1.001), labels[2000:])["mean_size"] == 5


def test_labels_shuffled_need_all_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(500, 4, generator=generator).softmax(1)
    labels = torch.randint(4, (500,), generator=generator)
    assert fixed_top_k(probs, labels, 0.95) == 4
