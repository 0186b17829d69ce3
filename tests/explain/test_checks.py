"""Checks of a map on a model whose reasons are known: the true map passes, others do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marey.explain.checks import (
    centred_blob,
    check_map,
    rank_correlation,
    share_at_least,
    shuffled_weights,
    smooth_map,
    temporal_deletions,
)

T, S = 4, 64


def striped() -> Tensor:
    clip = torch.zeros(T, 3, S, S)
    clip[:, :, ::2] = 1.0
    return clip


def places() -> Tensor:
    """The patches that the answer rests on: top row and left column of frames 1 and 2."""
    relevance = torch.zeros(T, 4, 4)
    relevance[1:3, 0] = 1.0
    relevance[1:3, :, 0] = 1.0
    return relevance


def stripes_there(batch: Tensor) -> Tensor:
    """How much of the stripes in those patches is left, 0..1."""
    difference = (batch[..., ::2, :] - batch[..., 1::2, :]).mean(2)  # (B, T, S / 2, S)
    patches = torch.nn.functional.avg_pool2d(difference, (8, 16))  # (B, T, 4, 4)
    return ((patches * places()).sum((1, 2, 3)) / places().sum()).clamp(0, 1)


def frame_2(batch: Tensor) -> Tensor:
    """How much of the stripes of frame 2 is left, 0..1."""
    return (batch[:, 2, :, ::2] - batch[:, 2, :, 1::2]).mean((1, 2, 3)).clamp(0, 1)


def true_map() -> Tensor:
    return places() + 1e-3 * torch.rand(T, 4, 4, generator=torch.Generator().manual_seed(1))


def test_the_true_map_passes_and_its_opposite_fails() -> None:
    generator = torch.Generator().manual_seed(0)
    good = check_map(stripes_there, striped(), true_map(), generator=generator)
    assert good.passed
    assert good.p_value == pytest.approx(1 / 51)
    assert good.gain > 0.4 > good.blob_gain
    bad = check_map(stripes_there, striped(), -true_map(), generator=generator)
    assert not bad.passed
    assert bad.p_value > 0.9


def test_a_blob_in_the_middle_is_no_explanation() -> None:
    generator = torch.Generator().manual_seed(0)
    blob = check_map(stripes_there, striped(), centred_blob(T, 4, 4), generator=generator)
    assert not blob.passed
    assert blob.gain == blob.blob_gain


def test_random_maps_pass_at_most_as_often_as_stated() -> None:
    generator = torch.Generator().manual_seed(3)
    passed = 0
    for _ in range(20):
        relevance = torch.rand(T, 4, 4, generator=generator)
        found = check_map(stripes_there, striped(), relevance, random_maps=40, generator=generator)
        passed += found.passed
    assert passed <= 3


def test_a_map_that_stays_without_the_weights_fails() -> None:
    generator = torch.Generator().manual_seed(0)
    options = {"random_maps": 40, "generator": generator}
    same = check_map(stripes_there, striped(), true_map(), shuffled_map=true_map(), **options)
    assert same.weights_correlation == pytest.approx(1)
    assert not same.passed
    other = check_map(stripes_there, striped(), true_map(), shuffled_map=-true_map(), **options)
    assert other.weights_correlation == pytest.approx(-1)
    assert other.passed


def test_frames_are_left_out_in_the_order_of_the_map() -> None:
    clip = striped()
    clip[[0, 1, 3]] = 0.0
    first, last = temporal_deletions(
        frame_2, clip, [torch.tensor([2, 0, 1, 3]), torch.tensor([0, 1, 3, 2])]
    )
    assert first == 0.0
    assert last == 1.0


def test_p_values_ranks_and_shuffled_weights_by_hand() -> None:
    assert share_at_least([0.1, 0.2, 0.3], 0.25) == pytest.approx(2 / 4)
    ramp = torch.arange(8.0).view(2, 2, 2)
    assert rank_correlation(ramp, ramp**3) == pytest.approx(1)
    assert rank_correlation(ramp, torch.ones(2, 2, 2)) == 0
    model = nn.Linear(6, 6)
    other = shuffled_weights(model, torch.Generator().manual_seed(0))
    assert not torch.equal(other.weight, model.weight)
    assert torch.equal(other.weight.flatten().sort().values, model.weight.flatten().sort().values)
    rough, smooth = torch.rand(8, 9, 9), smooth_map(8, 9, 9)
    assert (smooth[:, 1:] - smooth[:, :-1]).abs().mean() < (
        rough[:, 1:] - rough[:, :-1]
    ).abs().mean()
