"""Cross-validation that cuts no group and chooses nothing on what it scores."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.teaching.crossval import Candidate, choose, cross_validate, learning_curve
from marey.teaching.folds import folds_of
from marey.teaching.ridge import LOGITS_PER_SCORE, Ridge, standardise

NAMES = ["a", "b", "c"]


def problem(signal: float, groups: int = 12, width: int = 30, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.arange(3).repeat(groups)
    group = torch.arange(groups).repeat_interleave(3)
    centres = torch.randn(3, width, generator=generator)
    noise = torch.randn(len(numbers), 2, width, generator=generator)
    features = signal * centres[numbers][:, None] + noise
    return features, [NAMES[k] for k in numbers.tolist()], [f"g{k}" for k in group.tolist()]


def test_folds_cut_no_group_and_spread_classes():
    _, labels, groups = problem(1.0)
    folds = folds_of(labels, groups, 4, seed=3)
    for group in set(groups):
        assert len({int(f) for f, g in zip(folds, groups, strict=True) if g == group}) == 1
    for fold in range(4):
        assert [labels[i] for i in (folds == fold).nonzero()[:, 0]].count("a") == 3
    assert int(folds_of(labels, groups, 99).max()) == 11
    assert_close(folds, folds_of(labels, groups, 4, seed=3))


def test_ridge_is_the_primal_solution():
    features, labels, _ = problem(1.0, groups=5, width=7)
    numbers = torch.tensor([NAMES.index(label) for label in labels])
    ridge = Ridge(features, numbers, 3, [4, 3])
    weight, bias = ridge.linear(0.3)

    rows = features.flatten(0, 1).double()
    standard = standardise(rows, [4, 3])
    z = standard(rows)
    targets = torch.nn.functional.one_hot(numbers, 3).double().repeat_interleave(2, 0)
    primal = torch.linalg.solve(
        z.T @ z + 0.3 * torch.eye(7, dtype=torch.double), z.T @ (targets - targets.mean(0))
    )
    expected = LOGITS_PER_SCORE * (z @ primal + targets.mean(0))
    assert_close(rows @ weight.T + bias, expected)
    one_view = features[:4]
    assert_close(ridge.logits(one_view, [0.3])[0], (one_view.double() @ weight.T + bias).mean(1))
    # Both blocks weigh the same, whatever their width; one row's squared length is about one.
    assert_close(z[:, :4].pow(2).sum(), z[:, 4:].pow(2).sum())
    assert_close(z.pow(2).sum(1).mean(), torch.tensor(1.0, dtype=torch.double))


def test_a_feature_that_does_not_vary_is_left_out():
    rows = torch.randn(6, 3)
    rows[:, 1] = 4.2
    scale = standardise(rows, [3]).scale
    assert float(scale[1]) == 0
    assert float(scale[0]) > 0


def test_signal_is_found_and_noise_stays_at_chance():
    features, labels, groups = problem(1.0)
    found = cross_validate([Candidate("x", features, [30])], labels, groups, NAMES, num_folds=6)
    assert found.summary()["accuracy"] > 0.9
    assert found.answers.outputs["logits"].shape == (36, 1, 3)
    assert found.answers.outputs["embedding"].shape == (36, 1, 30)

    features, labels, groups = problem(0.0, groups=40)
    noise = cross_validate(
        [Candidate("x", features, [30]), Candidate("y", features.flip(0), [30])],
        labels,
        groups,
        NAMES,
    )
    low, high = noise.summary()["interval"]
    assert low < 1 / 3 < high


def test_what_marks_a_group_does_not_help():
    """Features that name the group are learned inside it and worth nothing outside."""
    generator = torch.Generator().manual_seed(0)
    labels = ["a"] * 20 + ["b"] * 20
    groups = [f"g{k // 5}" for k in range(40)]
    marks = torch.eye(8)[torch.arange(40) // 5] + 0.01 * torch.randn(40, 8, generator=generator)
    found = cross_validate(
        [Candidate("marks", marks[:, None], [8])], labels, groups, ["a", "b"], num_folds=8
    )
    assert found.summary()["accuracy"] < 0.6


def test_the_answer_of_a_fold_does_not_depend_on_its_labels():
    features, labels, groups = problem(0.3)
    folds = folds_of(labels, groups, 4)
    candidates = [Candidate("x", features, [30]), Candidate("y", features**2, [30])]
    found = cross_validate(candidates, labels, groups, NAMES, folds=folds)
    held = (folds == 2).nonzero()[:, 0].tolist()
    other = list(labels)
    for row in held:
        other[row] = NAMES[(NAMES.index(labels[row]) + 1) % 3]
    changed = cross_validate(candidates, other, groups, NAMES, folds=folds)
    assert_close(changed.answers.logits[held], found.answers.logits[held], atol=0, rtol=0)


def test_the_better_encoder_is_chosen():
    features, labels, groups = problem(1.0)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    candidates = [Candidate("noise", noise, [30]), Candidate("signal", features, [30])]
    choice, accuracies = choose(candidates, torch.arange(36), labels, groups, NAMES)
    assert candidates[choice.candidate].name == "signal"
    assert accuracies[1] > accuracies[0] + 0.3


def test_the_learning_curve_rises_with_signal_and_stops_where_examples_do():
    features, labels, groups = problem(0.4)
    folds = folds_of(labels, groups, 6)
    rows = learning_curve(Candidate("x", features, [30]), 0.1, labels, folds, NAMES)
    assert [row["shots"] for row in rows] == [1, 2, 5, 10]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.1
    assert all(row["lowest"] <= row["accuracy"] for row in rows)


@pytest.mark.parametrize("groups", [["g"] * 4, ["g", "g", "h", "h"]])
def test_few_groups_are_no_crash(groups):
    features = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0))
    candidate = Candidate("x", features, [3])
    choice, _ = choose([candidate], torch.arange(4), ["a", "b", "a", "b"], groups, ["a", "b"])
    assert choice.candidate == 0
