"""Cross-validation that cuts no group and chooses nothing on what it scores."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.teaching.crossval import (
    Candidate,
    Choice,
    averaged_choice,
    choose,
    cross_validate,
    learning_curve,
    linear_map,
    union_of,
)
from marey.teaching.folds import folds_of
from marey.teaching.regression import Regression
from marey.teaching.ridge import LOGITS_PER_SCORE, standardise

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
    ridge = Regression("ridge", features, numbers, 3, [4, 3])
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
    assert_close(ridge.logits(one_view, 0.3), (one_view.double() @ weight.T + bias).mean(1))
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


def test_candidates_within_one_standard_error_answer_together():
    """At 0.8 of 100 videos a standard error is 0.04."""
    choices = [
        Choice(0, 1.0, 0.75),
        Choice(1, 0.1, 0.80),
        Choice(2, 0.3, 0.77),
        Choice(3, 3.0, 0.80),
    ]
    found = averaged_choice(choices, 100)
    assert found.members == ((1, 0.1), (2, 0.3), (3, 3.0))
    assert averaged_choice(choices, 10_000).members == ((1, 0.1), (3, 3.0))
    perfect = [Choice(0, 1.0, 0.99), Choice(1, 1.0, 1.0)]
    assert averaged_choice(perfect, 30).members == ((1, 1.0),)


def test_the_mean_of_regressions_is_one_linear_map_of_their_parts():
    features, labels, _ = problem(1.0, width=9)
    numbers = torch.tensor([NAMES.index(label) for label in labels])
    frames, poses, motion = features.split([4, 3, 2], dim=2)
    first = Candidate("poses+motion", torch.cat((poses, motion), 2), [3, 2])
    second = Candidate("frames+poses", torch.cat((frames, poses), 2), [4, 3])
    union = union_of([first, second])
    assert (union.name, union.blocks) == ("frames+poses+motion", [4, 3, 2])  # clips come first
    assert_close(union.features, torch.cat((frames, poses, motion), 2))

    weight, bias = linear_map([(first, 0.3), (second, 1.0)], numbers, 3)
    each = [
        Regression("ridge", one.features, numbers, 3, one.blocks).logits(one.features, strength)
        for one, strength in ((first, 0.3), (second, 1.0))
    ]
    logits = (union.features.double() @ weight.T + bias).mean(1)
    assert_close(logits, (each[0] + each[1]) / 2)


def test_out_of_fold_answers_are_those_of_the_mean():
    """Two candidates that are hardly different."""
    features, labels, groups = problem(0.3, width=60)
    folds = folds_of(labels, groups, 4)
    noise = 0.05 * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    two = [Candidate("a", features, [60]), Candidate("b", features + noise, [60])]
    found = cross_validate(two, labels, groups, NAMES, folds=folds)
    assert {row["encoder"] for row in found.averaged} == {"a", "b"}
    assert set(found.encoder.split("+")) == {"a", "b"}
    held, known = folds == 1, folds != 1
    numbers = torch.tensor([NAMES.index(label) for label in labels])
    row = next(row for row in found.folds if row["fold"] == 1)
    members = [
        (
            Candidate(m["encoder"], two["ab".index(m["encoder"])].features[known], [60]),
            m["strength"],
        )
        for m in row["averaged"]
    ]
    weight, bias = linear_map(members, numbers[known], 3, kind=row["kind"])
    order = union_of([candidate for candidate, _ in members]).name.split("+")
    asked = torch.cat([two["ab".index(name)].features[held] for name in order], 2)
    expected = (asked.double() @ weight.T + bias).mean(1)
    assert_close(found.answers.logits[held, 0].double(), expected, atol=1e-4, rtol=1e-4)


def test_the_learning_curve_rises_with_signal_and_stops_where_examples_do():
    features, labels, groups = problem(0.4)
    folds = folds_of(labels, groups, 6)
    rows = learning_curve([(Candidate("x", features, [30]), 0.1)], labels, folds, NAMES)
    assert [row["shots"] for row in rows] == [1, 2, 5, 10]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.1
    assert all(row["lowest"] <= row["accuracy"] for row in rows)


@pytest.mark.parametrize("groups", [["g"] * 4, ["g", "g", "h", "h"]])
def test_few_groups_are_no_crash(groups):
    features = torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(0))
    candidate = Candidate("x", features, [3])
    choice, _ = choose([candidate], torch.arange(4), ["a", "b", "a", "b"], groups, ["a", "b"])
    assert choice.candidate == 0
