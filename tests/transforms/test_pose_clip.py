"""Windows of keypoints: cutting, normalising, augmenting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.transforms.keypoints import MIRRORED
from marey.transforms.pose_augment import PoseAugment, mirror
from marey.transforms.pose_clip import (
    PoseSampling,
    at_moments,
    cut_both_ways,
    cut_windows,
    heights,
    normalise_pose,
    window_starts,
    with_nearest,
)

SAMPLING = PoseSampling()


def person(seed: int = 0, T: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.rand(T, 17, 3, generator=generator)
    keypoints[..., 2] = 0.3 + 0.6 * keypoints[..., 2]
    return keypoints


def track(frames: int = 60, fps: float = 12.5) -> tuple[np.ndarray, np.ndarray]:
    seconds = np.arange(frames) / fps
    keypoints = np.ones((frames, 17, 3), np.float32)
    keypoints[..., 0] = seconds[:, None]
    return seconds, keypoints


def test_place_and_size_in_the_picture_do_not_matter_but_the_way_does():
    keypoints = person()
    moved = keypoints.clone()
    moved[..., :2] = 7 * moved[..., :2] + torch.tensor([100.0, -30.0])
    torch.testing.assert_close(normalise_pose(keypoints), normalise_pose(moved))
    walking = keypoints.clone()
    walking[..., 0] += torch.arange(16)[:, None] * 0.2
    assert not torch.allclose(normalise_pose(keypoints), normalise_pose(walking), atol=0.1)


def test_a_square_person_worked_by_hand():
    keypoints = torch.zeros(2, 17, 3)
    keypoints[..., 2] = 1
    keypoints[:, :5, :2] = torch.tensor([10.0, 0.0])
    keypoints[:, 5:7, :2] = torch.tensor([10.0, 10.0])
    keypoints[:, 7:13, :2] = torch.tensor([10.0, 20.0])
    keypoints[:, 13:, :2] = torch.tensor([10.0, 40.0])
    out = normalise_pose(keypoints)
    # height 40, middle of shoulders (10) and hips (20) at 15
    torch.testing.assert_close(out[0, 0], torch.tensor([0.0, -15 / 40, 1.0]))
    torch.testing.assert_close(out[0, 16], torch.tensor([0.0, 25 / 40, 1.0]))


def test_the_order_of_the_moments_changes_only_their_order():
    keypoints, order = person(), torch.randperm(16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(normalise_pose(keypoints[order]), normalise_pose(keypoints)[order])


def test_unsure_keypoints_are_zero_and_do_not_count():
    keypoints = person()
    keypoints[3, 9] = torch.tensor([500.0, 500.0, 0.05])
    out = normalise_pose(keypoints)
    assert torch.equal(out[3, 9], torch.zeros(3))
    reference = keypoints.clone()
    reference[3, 9, :2] = -900.0
    torch.testing.assert_close(out, normalise_pose(reference))


def test_nobody_gives_zeros_and_nothing_infinite():
    out = normalise_pose(torch.zeros(3, 16, 17, 3))
    assert torch.equal(out, torch.zeros(3, 16, 17, 3))


def test_windows_cover_a_track_and_the_last_ends_with_it():
    seconds, keypoints = track()
    starts, windows = cut_windows(seconds, keypoints, SAMPLING)
    assert starts[0] == 0
    assert starts[-1] + 15 / 8 == pytest.approx(seconds[-1])
    assert windows.shape == (len(starts), 16, 17, 3)
    torch.testing.assert_close(
        windows[1, :, 0, 0], torch.tensor(0.5 + np.arange(16) / 8, dtype=torch.float32)
    )


def test_a_short_track_gives_one_window_around_its_middle_with_empty_ends():
    seconds, keypoints = track(frames=13)
    assert window_starts(seconds[0], seconds[-1], SAMPLING) == [pytest.approx(0.48 - 0.9375)]
    _, windows = cut_windows(seconds, keypoints, SAMPLING)
    seen = windows[0, :, 0, 2] > 0
    assert 7 <= seen.sum() <= 10
    assert seen[[0, 7, -1]].tolist() == [False, True, False]


def test_too_short_a_track_gives_none():
    seconds, keypoints = track(frames=4)
    assert cut_windows(seconds, keypoints, SAMPLING)[0] == []
    assert cut_windows(seconds[:0], keypoints[:0], SAMPLING)[1].shape == (0, 16, 17, 3)


def test_a_gap_is_empty_and_is_not_bridged():
    seconds, keypoints = track()
    there = (seconds < 0.8) | (seconds > 1.6)
    found = at_moments(seconds[there], keypoints[there], np.array([0.5, 1.2, 1.7]))
    assert (found[:, 0, 2] > 0).tolist() == [True, False, True]


def test_the_surer_of_two_finds_counts_more():
    keypoints = np.zeros((2, 17, 3), np.float32)
    keypoints[0, :, 0], keypoints[1, :, 0] = 0, 1
    keypoints[0, :, 2], keypoints[1, :, 2] = 0.1, 0.9
    found = at_moments(np.array([0.0, 0.08]), keypoints, np.array([0.04]))
    assert found[0, 0, 0] > 0.95


def test_a_wrong_shape_is_named():
    with pytest.raises(UserError, match=r"\(3, 17, 2\), expected \(3, 17, 3\)"):
        cut_windows(np.arange(3.0), np.zeros((3, 17, 2), np.float32), SAMPLING)


def test_settings_survive_json():
    sampling = PoseSampling(num_frames=12, fps=6.0)
    assert PoseSampling.from_dict(sampling.to_dict()) == sampling
    assert sampling.to_dict()["kind"] == "pose"
    assert sampling.seconds == 2


def test_the_mirror_exchanges_sides_by_name_and_twice_is_the_same():
    keypoints = person()
    mirrored = mirror(keypoints)
    torch.testing.assert_close(mirrored[:, 9, 0], -keypoints[:, 10, 0])
    torch.testing.assert_close(mirrored[:, 9, 1:], keypoints[:, 10, 1:])
    torch.testing.assert_close(mirror(mirrored), keypoints)
    assert sorted(MIRRORED) == list(range(17))


def test_augmentation_is_drawn_from_its_generator_and_keeps_what_is_unseen():
    keypoints = person()
    keypoints[:, 4] = 0
    augment = PoseAugment()
    first = augment(keypoints, torch.Generator().manual_seed(1))
    again = augment(keypoints, torch.Generator().manual_seed(1))
    other = augment(keypoints, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    unseen = (first[:, 3:5, 2] == 0).all(0)
    assert unseen.any()
    assert first[..., 2].max() <= 1


def test_augmentation_switched_off_changes_nothing():
    off = PoseAugment(
        mirror=0,
        turn_degrees=0,
        stretch=0,
        lose_keypoint=0,
        lose_part=0,
        score_shift=0,
        noise_share=0,
    )
    keypoints = person()
    torch.testing.assert_close(off(keypoints, torch.Generator().manual_seed(0)), keypoints)


def test_noise_moves_what_is_seen_by_at_most_its_size_and_nothing_else():
    keypoints = torch.zeros(4000, 17, 3)
    keypoints[:, :9, 2] = 0.5
    noisy = PoseAugment(
        mirror=0,
        turn_degrees=0,
        stretch=0,
        lose_keypoint=0,
        lose_part=0,
        score_shift=0,
        noise_share=1,
        noise=0.05,
    )
    out = noisy(keypoints, torch.Generator().manual_seed(0))
    size = float(out[:, :9, :2].std())
    assert 0 < size < 0.05
    assert (out[:, 9:] == 0).all()
    after, before = out[1:, 0, 0], out[:-1, 0, 0]
    assert float((after * before).mean()) / size**2 == pytest.approx(0.5, abs=0.06)


def test_the_nearest_person_stands_second_and_a_far_one_not_at_all():
    one = person()[None]  # (1, T, 17, 3)
    near, far = one.clone(), one.clone()
    near[..., 0] += 1.0
    far[..., 0] += 1.5
    pair = with_nearest(one, torch.stack((far, near), dim=1), 0.15)
    torch.testing.assert_close(pair[:, :, :17], one)
    torch.testing.assert_close(pair[:, :, 17:], near)
    away = one.clone()
    away[..., 0] += 100.0
    assert (with_nearest(one, away[:, None], 0.15)[:, :, 17:] == 0).all()
    assert (with_nearest(one, one[:, None][:, :0], 0.15)[:, :, 17:] == 0).all()


def test_somebody_seen_for_a_moment_only_is_not_the_nearest():
    one = person()[None]
    brief = one.clone()
    brief[:, 1:] = 0
    there = one.clone()
    there[..., 0] += 1.0
    pair = with_nearest(one, torch.stack((brief, there), dim=1), 0.15)
    torch.testing.assert_close(pair[:, :, 17:], there)


def test_a_second_person_is_expressed_in_heights_of_the_first():
    one = person()
    pair = torch.cat((one, one * torch.tensor([2.0, 2.0, 1.0]) + torch.tensor([3.0, 0, 0])), dim=1)
    alone = normalise_pose(one)
    both = normalise_pose(pair)
    torch.testing.assert_close(both[:, :17], alone)
    height = heights(one, 0.15)
    between = both[:, 17:, 0] - both[:, :17, 0]
    torch.testing.assert_close(between * height, one[..., 0] + 3.0)


def test_augmentation_may_leave_the_person_alone():
    pair = torch.cat((person(), person()), dim=1)
    alone = PoseAugment(lose_keypoint=0, lose_part=0, lose_others=1.0)
    changed = alone(pair, torch.Generator().manual_seed(0))
    assert (changed[:, 17:, 2] == 0).all()
    assert (changed[:, :17, 2] > 0).any()


def test_more_than_two_persons_are_refused():
    with pytest.raises(UserError, match="num_persons is 3"):
        PoseSampling(num_persons=3)


def test_cut_from_both_ends_the_windows_of_a_reversed_track_are_the_reversed_windows():
    seconds, keypoints = track(60)
    keypoints[..., :2] += np.random.default_rng(0).normal(0, 0.05, (60, 17, 2)).astype(np.float32)
    both = cut_both_ways(seconds, keypoints, SAMPLING)
    first, second = both.chunk(2)
    backwards = cut_both_ways(-seconds[::-1], keypoints[::-1].copy(), SAMPLING).flip(1)
    torch.testing.assert_close(backwards, torch.cat((second, first)))
    # cut from the start alone they are not: the finds lie elsewhere between the moments
    assert not torch.allclose(cut_windows(seconds, keypoints, SAMPLING)[1], second)
