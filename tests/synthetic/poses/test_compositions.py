"""Composed motions show what their names say, measured on the joints."""

from __future__ import annotations

import numpy as np
import pytest

from marey.synthetic.poses import compositions, floor, strikes, whole_body
from marey.synthetic.poses.actor import FPS, Actor, follow
from marey.synthetic.poses.body import CHILDREN
from marey.synthetic.poses.vocabulary import VOCABULARY

COMPOSERS = sorted(
    {compose for sources in VOCABULARY.values() for compose in sources.composed},
    key=lambda compose: compose.__name__,
)
SEEDS = range(12)


def during(composed: compositions.Composed) -> np.ndarray:
    joints, begin, end = composed
    return joints[round(begin * FPS) : round(end * FPS) + 1]


def test_minimum_jerk_worked_by_hand():
    found = follow(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]), [(0.0, 0.0), (1.0, 2.0)])
    np.testing.assert_allclose(found, [0, 0, 1, 2, 2])
    quarter = follow(np.array([0.25]), [(0.0, 0.0), (1.0, 1.0)])[0]
    assert quarter == pytest.approx(10 / 64 - 15 / 256 + 6 / 1024)


@pytest.mark.parametrize("compose", COMPOSERS, ids=lambda compose: compose.__name__)
def test_every_motion_is_finite_of_one_body_and_the_same_for_the_same_seed(compose):
    for seed in range(4):
        joints, begin, end = compose(np.random.default_rng(seed))
        again = compose(np.random.default_rng(seed))[0]
        assert np.isfinite(joints).all()
        assert joints.shape[1:] == (17, 3)
        assert 0 <= begin < end <= len(joints) / FPS + 1.5
        np.testing.assert_array_equal(joints, again)
        assert joints[..., 1].max() < 2.9
        for start, stop, _ in CHILDREN:
            assert np.linalg.norm(joints[:, start] - joints[:, stop], axis=-1).max() < 0.6


def test_a_kick_lifts_one_foot_and_a_stand_none():
    kicks = [during(strikes.kick(np.random.default_rng(seed))) for seed in SEEDS]
    stands = [compositions.stand(np.random.default_rng(seed))[0] for seed in SEEDS]
    assert all(joints[:, 15:17, 1].max() > 0.18 for joints in kicks)
    assert np.median([joints[:, 15:17, 1].max() for joints in kicks]) > 0.4
    assert all(joints[:, 15:17, 1].max() < 0.3 for joints in stands)


def test_a_punch_and_a_push_stretch_arms_forward_one_and_both():
    for seed in SEEDS:
        for compose, number in ((strikes.punch, 1), (strikes.push, 2)):
            joints = during(compose(np.random.default_rng(seed)))
            reach = np.linalg.norm(joints[:, 9:11] - joints[:, 5:7], axis=-1)
            level = np.abs(joints[:, 9:11, 1] - joints[:, 5:7, 1]) < 0.45
            stretched = ((reach > 0.36) & level).any(0)
            assert stretched.sum() >= number


def test_bending_lowers_the_head_and_comes_up_again():
    for seed in SEEDS:
        joints, begin, end = whole_body.bend(np.random.default_rng(seed))
        low = joints[round(begin * FPS) : round(end * FPS), 0, 1].min()
        assert low < joints[0, 0, 1] - 0.35


def test_a_fall_ends_low_and_getting_up_begins_low():
    for seed in SEEDS:
        fallen = floor.fall(np.random.default_rng(seed))[0]
        risen = floor.get_up(np.random.default_rng(seed))[0]
        assert fallen[-1, :, 1].max() < 0.9
        assert risen[0, :, 1].max() < 0.9
        assert risen[-1, 0, 1] > 1.0


def test_a_jump_leaves_the_ground_with_both_feet():
    for seed in SEEDS:
        joints = whole_body.jump(np.random.default_rng(seed))[0]
        assert joints[:, 15:17, 1].min(1).max() > 0.18


def test_waving_hands_are_above_their_resting_place_and_move():
    for seed in SEEDS:
        joints = during(compositions.wave(np.random.default_rng(seed)))
        above = joints[:, 9:11, 1] - joints[:, 5:7, 1]
        assert above.max() > -0.1


def test_sitting_lowers_the_hips_to_a_seat():
    for seed in SEEDS:
        joints = whole_body.sit(np.random.default_rng(seed))[0]
        assert joints[-1, 11:13, 1].mean() < 0.7


def test_feet_stay_where_they_stand_until_the_body_has_moved_on():
    still = Actor(np.random.default_rng(0), 2.0)
    moved = np.abs(np.diff(still.step()[:, :, [0, 2]], axis=0)).max()
    walking = Actor(np.random.default_rng(0), 2.0)
    walking.go([(0.0, 0.0), (2.0, 1.5)])
    feet = walking.step()
    assert moved == 0
    assert np.abs(feet[-1] - feet[0])[:, 2].min() > 0.8
    planted = np.abs(np.diff(feet[..., [0, 2]], axis=0)).max(-1) == 0
    assert planted.any(1).all()  # one foot always stands
