"""The stem of keypoints: features worked by hand, what is not seen, order of moments."""

from __future__ import annotations

import pytest
import torch

from marey.errors import UserError
from marey.layers.pose_stem import CHANGE_SCALE, FEATURES, PoseStem, by_person, keypoint_features


def clip(T: int = 4, persons: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(2, T, 17 * persons, 3, generator=generator)
    keypoints[..., 2] = 0.5 + keypoints[..., 2] / 2
    return keypoints


def test_shapes_with_one_and_two_persons():
    stem = PoseStem(8)
    assert stem(clip()).shape == (2, 4, 13, 8)
    assert PoseStem(8, 2)(clip(persons=2)).shape == (2, 4, 14, 8)
    assert stem.visible(clip(persons=2)).shape == (2, 4, 14)


def test_features_worked_by_hand():
    keypoints = torch.zeros(1, 2, 1, 17, 3)
    keypoints[..., 2] = 1.0
    keypoints[0, :, 0, 5:7, 0] = 1.0  # shoulders at x = 1
    keypoints[0, 1, ..., 0] += 0.5  # everything moves on by .5
    keypoints[0, 1, 0, 9, 1] = 0.25  # and one hand comes down
    features = keypoint_features(keypoints)
    assert features.shape == (1, 2, 1, 17, FEATURES)
    hand = features[0, :, 0, 9]
    # middle of shoulders (1) and hips (0): .5, then 1; the hand is .5 left of it both times
    torch.testing.assert_close(hand[0, :2], torch.tensor([-0.5, 0.0]))
    torch.testing.assert_close(hand[1, :2], torch.tensor([-0.5, 0.25]))
    torch.testing.assert_close(hand[1, 2:4], torch.tensor([0.0, 0.25 * CHANGE_SCALE]))
    torch.testing.assert_close(hand[0, 4:6], torch.tensor([0.0, 0.25 * CHANGE_SCALE]))
    torch.testing.assert_close(hand[0, 2:4], torch.zeros(2))
    torch.testing.assert_close(hand[1, 8:], torch.tensor([1.0, 0.0, 0.5 * CHANGE_SCALE, 0.0]))


def test_what_is_not_seen_is_zero_and_gives_no_change():
    keypoints = by_person(clip()).clone()
    keypoints[0, 1, 0, 9] = 0
    features = keypoint_features(keypoints)
    assert torch.equal(features[0, 1, 0, 9], torch.zeros(FEATURES))
    assert torch.equal(features[0, 2, 0, 9, 2:4], torch.zeros(2))
    assert torch.equal(features[0, 0, 0, 9, 4:6], torch.zeros(2))


def test_the_head_is_seen_where_any_of_its_keypoints_is():
    keypoints = clip()
    keypoints[0, 0, :4, 2] = 0
    keypoints[1, 0, :5, 2] = 0
    keypoints[1, 0, 9, 2] = 0
    visible = PoseStem(8).visible(keypoints)
    assert visible[0, 0].all()
    assert visible[1, 0].tolist() == [False, *[True] * 4, False, *[True] * 7]


def test_changes_are_those_of_the_moments_as_they_come():
    keypoints = by_person(clip())
    order = torch.tensor([2, 0, 3, 1])
    shuffled = keypoint_features(keypoints[:, order])
    plain = keypoint_features(keypoints)[:, order]
    torch.testing.assert_close(shuffled[..., :2], plain[..., :2])  # places do not depend on it
    assert not torch.allclose(shuffled[..., 2:4], plain[..., 2:4])


def test_gradients_reach_every_parameter():
    stem = PoseStem(8)
    stem(clip()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in stem.parameters())


def test_a_clip_of_another_form_is_named():
    with pytest.raises(UserError, match=r"shape \(1, 4, 16, 3\)"):
        PoseStem(8)(torch.zeros(1, 4, 16, 3))


def test_a_second_person_is_one_token_that_changes_no_token_of_the_first():
    stem = PoseStem(8, num_persons=2).eval()
    pair = clip(persons=2)
    away = pair.clone()
    away[:, :, 17:] = 0
    torch.testing.assert_close(stem(pair)[:, :, :13], stem(away)[:, :, :13])
    assert not torch.allclose(stem(pair)[:, :, 13], stem(away)[:, :, 13])
    assert not stem.visible(away)[:, :, 13].any()
    assert stem.visible(pair)[:, :, 13].all()
