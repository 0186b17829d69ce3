"""The composed body: directions, limbs of fixed length, other bodies, mirror images."""

from __future__ import annotations

import numpy as np
import pytest

from marey.synthetic.poses.actor import Actor
from marey.synthetic.poses.body import (
    CHILDREN,
    FOREARM,
    SHANK,
    THIGH,
    UPPER_ARM,
    apply,
    bend_limb,
    mirror_body,
    reshape_body,
    turn,
)


def length(joints: np.ndarray, start: int, end: int) -> np.ndarray:
    return np.linalg.norm(joints[:, end] - joints[:, start], axis=-1)


@pytest.fixture
def joints() -> np.ndarray:
    return Actor(np.random.default_rng(0), 1.0).joints()


def test_turns_worked_by_hand():
    quarter = np.array([np.pi / 2])
    np.testing.assert_allclose(apply(turn("x", quarter), (0, 1, 0))[0], (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(apply(turn("y", quarter), (0, 0, 1))[0], (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(apply(turn("z", quarter), (0, 1, 0))[0], (-1, 0, 0), atol=1e-12)


def test_a_limb_reaches_its_target_and_its_joint_lies_towards_the_pole():
    root, target = np.zeros((1, 3)), np.array([[0.0, 0.0, 0.4]])
    middle, end = bend_limb(root, target, np.array([[0.0, -1.0, 0.0]]), 0.25, 0.25)
    np.testing.assert_allclose(end, target, atol=1e-12)
    np.testing.assert_allclose(middle[0], (0, -0.15, 0.2), atol=1e-12)  # 3-4-5 triangle


def test_a_target_out_of_reach_stretches_the_limb_towards_it():
    _, end = bend_limb(np.zeros((1, 3)), np.array([[0, 0, 9.0]]), np.array([[0, 1.0, 0]]), 0.3, 0.2)
    assert 0.49 < end[0, 2] < 0.5


def test_limbs_keep_their_lengths(joints):
    for start, end, wanted in (
        (5, 7, UPPER_ARM),
        (8, 10, FOREARM),
        (11, 13, THIGH),
        (14, 16, SHANK),
    ):
        np.testing.assert_allclose(length(joints, start, end), wanted, atol=1e-6)


def test_a_standing_body_faces_where_it_heads_and_its_left_is_left(joints):
    left = joints[:, 11, 0] - joints[:, 12, 0]
    nose_ahead = joints[:, 0, 2] - joints[:, 3:5, 2].mean(1)
    assert (left > 0).all()  # heading 0: left is +x
    assert (nose_ahead > 0).all()  # and the face is at +z
    assert (joints[:, 0, 1] > joints[:, 5, 1]).all()
    assert (joints[:, 15:17, 1] < 0.15).all()


def test_another_body_has_other_limbs_and_stays_on_the_ground(joints):
    other = reshape_body(joints, arm=1.2, leg=0.9)
    np.testing.assert_allclose(length(other, 5, 7), 1.2 * length(joints, 5, 7))
    np.testing.assert_allclose(length(other, 13, 15), 0.9 * length(joints, 13, 15))
    np.testing.assert_allclose(other[..., 1].min(1), 0.9 * joints[..., 1].min(1))


def test_a_mirror_image_swaps_left_and_right_and_twice_is_the_same(joints):
    mirrored = mirror_body(joints)
    np.testing.assert_allclose(mirrored[:, 5, 0], -joints[:, 6, 0])
    np.testing.assert_allclose(mirror_body(mirrored), joints)
    for start, end, _ in CHILDREN:
        assert (length(mirrored, start, end) > 0).all()
