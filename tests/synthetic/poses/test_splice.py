"""Cutting and joining motions."""

from __future__ import annotations

import numpy as np

from marey.synthetic.poses.actor import FPS, Actor
from marey.synthetic.poses.splice import (
    exaggerate,
    go_round,
    graft,
    heading_of,
    join,
    placed,
    sample,
)


def walking(seconds: float = 2.0, speed: float = 1.2, seed: int = 0) -> np.ndarray:
    actor = Actor(np.random.default_rng(seed), seconds)
    actor.go([(0.0, 0.0), (seconds, speed * seconds)])
    return actor.joints()


def test_between_two_moments_lies_their_mean():
    joints = np.zeros((2, 17, 3))
    joints[1] = 2
    np.testing.assert_allclose(sample(joints, 1.0, np.array([0.5, 7.0]))[:, 0, 0], [1, 2])


def test_a_placed_motion_starts_with_the_heading_over_the_point():
    joints = placed(walking(), 1.0, np.array([3.0, -2.0]))
    np.testing.assert_allclose(joints[0, 11:13].mean(0)[[0, 2]], (3, -2), atol=1e-9)
    assert abs(heading_of(joints[0]) - 1.0) < 1e-9


def test_joined_motions_go_on_where_the_first_ended_without_a_leap():
    whole = join(walking(seed=1), walking(seed=2), 12)
    assert len(whole) == 2 * len(walking()) + 12
    assert np.linalg.norm(np.diff(whole[:, 11:13].mean(1), axis=0), axis=1).max() < 0.15


def test_a_longer_walk_goes_on_forward():
    joints = walking(2.5)
    longer = go_round(joints, FPS, 6.0)
    assert len(longer) >= 6 * FPS
    way = longer[:, 11:13, 2].mean(1)
    assert way[-1] > 1.5 * way[len(joints) - 1]
    assert np.diff(way).min() > -0.1


def test_a_graft_takes_arms_from_one_and_legs_from_the_other():
    upper, lower = walking(seed=3), walking(seed=4)
    mixed = graft(upper, lower)
    np.testing.assert_allclose(mixed[:, 11:], lower[:, 11:])
    wrists = np.linalg.norm(mixed[:, 9:11] - mixed[:, 11:13].mean(1, keepdims=True), axis=-1)
    wanted = np.linalg.norm(upper[:, 9:11] - upper[:, 11:13].mean(1, keepdims=True), axis=-1)
    np.testing.assert_allclose(wrists, wanted)


def test_a_larger_motion_moves_more_and_keeps_its_limbs():
    joints = walking()
    larger = exaggerate(joints, 1.3)

    def swing(motion: np.ndarray) -> float:
        return float((motion[:, 15] - motion[:, 11:13].mean(1)).std(0).sum())

    assert swing(larger) > swing(joints)
    thigh = np.linalg.norm(larger[:, 13] - larger[:, 11], axis=-1)
    np.testing.assert_allclose(thigh, thigh[0])
