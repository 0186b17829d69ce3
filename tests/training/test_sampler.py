"""The order of samples: every sample once an epoch, the same clips however many processes share
them."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from marey.training.sampler import (
    PartSampler,
    SampleStream,
    balanced_probabilities,
    finishes_epoch,
    steps_of_epochs,
)


def test_an_epoch_shows_every_sample_once_and_epochs_differ() -> None:
    stream = SampleStream(10, seed=3)
    first, second = stream.keys(0, 10), stream.keys(10, 20)
    assert sorted(first) == [(0, i) for i in range(10)]
    assert sorted(second) == [(1, i) for i in range(10)]
    assert [i for _, i in first] != [i for _, i in second]


def test_any_stretch_of_the_stream_is_the_same_however_it_is_reached() -> None:
    whole = SampleStream(7, seed=1).keys(0, 40)
    assert SampleStream(7, seed=1).keys(23, 31) == whole[23:31]
    assert SampleStream(7, seed=2).keys(0, 40) != whole


@pytest.mark.parametrize(("accumulate", "world"), [(1, 1), (2, 1), (1, 2), (2, 2), (1, 4)])
def test_the_clips_of_a_step_do_not_depend_on_how_it_is_cut(accumulate: int, world: int) -> None:
    stream = SampleStream(11, seed=0)
    parts = [
        list(
            islice(
                PartSampler(
                    stream,
                    batch_size=8,
                    accumulate=accumulate,
                    rank=rank,
                    world=world,
                    first_step=5,
                ),
                accumulate,
            )
        )
        for rank in range(world)
    ]
    keys = [key for rank in parts for part in rank for key in part]
    assert Counter(keys) == Counter(stream.keys(40, 48))
    assert all(len(part) == 8 // (accumulate * world) for rank in parts for part in rank)


def test_balanced_draws_show_classes_equally_often() -> None:
    labels = [0] * 90 + [1] * 10
    assert balanced_probabilities(labels)[:90].sum() == pytest.approx(0.5)
    keys = SampleStream(100, seed=0, labels=labels).keys(0, 5000)
    share = sum(labels[i] for _, i in keys) / len(keys)
    assert share == pytest.approx(0.5, abs=0.03)


def test_a_sample_drawn_again_in_one_epoch_has_other_randomness() -> None:
    keys = SampleStream(20, seed=0, labels=[0] * 19 + [1]).keys(0, 20)
    assert len(set(keys)) == 20
    assert len({i for _, i in keys}) < 20


def test_steps_and_epoch_ends_by_hand() -> None:
    assert steps_of_epochs(1, 30, 8) == 4
    assert steps_of_epochs(6, 30, 8) == 23
    assert steps_of_epochs(2, 32, 8) == 8
    assert steps_of_epochs(1, 3, 8) == 1
    assert [step for step in range(12) if finishes_epoch(step, 30, 8)] == [3, 7, 11]
    assert [step for step in range(3) if finishes_epoch(step, 3, 8)] == [0, 1, 2]
