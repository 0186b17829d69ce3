"""Captured motions: names, partitions, cycles. Loading one needs pybullet; those tests skip without
it."""

from __future__ import annotations

import importlib.util
from itertools import pairwise

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.synthetic import motion
from marey.synthetic.motion import list_actions, reversed_name

needs_pybullet = pytest.mark.skipif(
    importlib.util.find_spec("pybullet") is None,
    reason="rendering needs pybullet (the extra mocap)",
)


def test_there_are_15_recordings_8_named_reversals_and_30_classes_in_all():
    assert [len(list_actions(kind)) for kind in ("none", "named", "all")] == [15, 23, 30]
    assert reversed_name("walk") == "walk backwards"
    assert reversed_name("walk backwards") == "walk"
    assert reversed_name("kick") == "kick reversed"
    assert all(reversed_name(reversed_name(name)) == name for name in list_actions("all"))


def test_no_value_of_one_split_lies_in_an_interval_of_another():
    for name, splits in motion.PARTITIONS.items():
        intervals = sorted(
            (low, high, split) for split, spans in splits.items() for low, high in spans
        )
        for (_, high, _), (low, _, _) in pairwise(intervals):
            assert high <= low + 1e-9, name


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_drawn_values_lie_in_the_intervals_of_their_split(split):
    generator = torch.Generator().manual_seed(3)
    for name, splits in motion.PARTITIONS.items():
        for _ in range(50):
            value = motion.draw(name, split, generator)
            assert any(low <= value < high for low, high in splits[split]), name


def test_quaternion_product_of_two_quarter_turns_is_a_half_turn():
    quarter = np.array([np.sqrt(0.5), 0, np.sqrt(0.5), 0])
    np.testing.assert_allclose(
        motion.quaternion_product(quarter, quarter), [0, 0, 1, 0], atol=1e-12
    )


@needs_pybullet
def test_motions_go_on_smoothly_from_cycle_to_cycle_and_run_backwards():
    walk = motion.load_motion("walk")
    around = walk.poses(np.array([walk.seconds - 1e-4, walk.seconds + 1e-4]))
    np.testing.assert_allclose(around[0, :3], around[1, :3], atol=0.02)
    back = motion.load_motion("walk backwards")
    np.testing.assert_allclose(
        back.poses(np.array([0.3])), walk.poses(np.array([walk.seconds - 0.3])), atol=1e-9
    )
    forward_travel = walk.poses(np.array([0.0, 3 * walk.seconds]))[:, 0]
    assert forward_travel[1] - forward_travel[0] > 3.0


def test_an_unknown_set_of_reversals_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'named'"):
        list_actions("namd")


@needs_pybullet
def test_a_start_is_drawn_where_the_recording_moves():
    generator = torch.Generator().manual_seed(0)
    jump = motion.load_motion("jump")
    every_start = np.linspace(0, jump.seconds, 50)
    least = jump.activity(0.5, every_start).min()
    starts = np.array([motion.draw_start("jump", 0.5, "train", generator) for _ in range(20)])
    assert (jump.activity(0.5, starts) > least).all()
