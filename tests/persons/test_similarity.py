from __future__ import annotations

import numpy as np
import pytest

from marey.persons.similarity import (
    KEYPOINT_SPREAD,
    box_iou,
    clothes_colours,
    colour_similarity,
    keypoint_similarity,
)


def test_the_overlap_of_boxes_by_hand():
    iou = box_iou(
        np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 1, 3, 3], [5, 5, 6, 6], [0, 0, 2, 2]])
    )
    np.testing.assert_allclose(iou, [[1 / 7, 0, 1]])


def test_no_boxes_have_no_overlap():
    assert box_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_keypoint_similarity_is_the_equation():
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 2, 17, 3))
    area = np.array([0.3, 0.5])
    expected = np.zeros((2, 2))
    for p in range(2):
        for q in range(2):
            total = weights = 0.0
            for i in range(17):
                d2 = ((first[p, i, :2] - second[q, i, :2]) ** 2).sum()
                weight = first[p, i, 2] * second[q, i, 2]
                mean = (area[p] + area[q]) / 2
                total += weight * np.exp(-d2 / (2 * mean * KEYPOINT_SPREAD[i] ** 2))
                weights += weight
            expected[p, q] = total / weights
    got = keypoint_similarity(first, area, second, area)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_pose_is_like_itself_and_unlike_one_far_away():
    pose = np.random.default_rng(1).random((1, 17, 3)).astype(np.float32)
    area = np.array([1.0], np.float32)
    assert keypoint_similarity(pose, area, pose, area)[0, 0] == pytest.approx(1)
    assert keypoint_similarity(pose, area, pose + np.array([5, 0, 0]), area)[0, 0] < 1e-6


def test_a_guessed_keypoint_counts_little():
    pose = np.ones((1, 17, 3), np.float32)
    moved = pose.copy()
    moved[0, 0] = (9, 9, 1e-3)
    area = np.array([1.0], np.float32)
    assert keypoint_similarity(pose, area, moved, area)[0, 0] > 0.99


def test_clothes_are_told_apart_by_upper_and_lower_colours():
    frame = np.zeros((3, 100, 200), np.uint8)
    frame[0, :50, :100] = 255  # red above black
    frame[2, 50:, 100:] = 255  # black above blue
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
    colours = clothes_colours(frame, boxes)
    np.testing.assert_allclose(colours.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(colour_similarity(colours, colours), np.eye(2), atol=1e-6)


def test_a_person_outside_the_frame_has_no_colours():
    colours = clothes_colours(np.zeros((3, 10, 10), np.uint8), np.array([[1.0, 1, 1, 1]]))
    assert colours.sum() == 0
