"""Poses as one vector: blind to places, size and length of the video; moved by what people do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from marey.features.poses import POSE_DIM, describe, pose_vector
from marey.persons.pose_tracks import PoseTrack, PoseTracks


def people(frames: int = 20, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    standing = random.uniform(0, 1, (1, 2, 17, 2)) + np.array([[0, 0], [3, 0]])[None, :, None]
    return standing + 0.05 * random.normal(size=(frames, 2, 17, 2)).cumsum(0)


def track(number: int, keypoints: np.ndarray, first: int = 0) -> PoseTrack:
    frames = np.arange(first, first + len(keypoints))
    scores = np.ones((len(keypoints), 17, 1))
    return PoseTrack(
        number=number,
        frame_indices=frames,
        seconds=frames / 12.5,
        keypoints=np.concatenate((keypoints, scores), -1).astype(np.float32),
        boxes_xyxy=np.zeros((len(keypoints), 4), np.float32),
        scores=np.ones(len(keypoints), np.float32),
        observed=np.ones(len(keypoints), bool),
    )


def tracks(*found: PoseTrack, frames: int) -> PoseTracks:
    return PoseTracks(
        video="clip.mp4",
        width=320,
        height=240,
        fps=12.5,
        frame_indices=np.arange(frames),
        seconds=np.arange(frames) / 12.5,
        tracks=found,
    )


def test_places_size_and_mirroring_do_not_change_the_vector():
    keypoints = people()
    vector = describe(keypoints, 12.5)
    assert vector.shape == (POSE_DIM,)
    assert_allclose(describe(keypoints[:, ::-1], 12.5), vector, atol=1e-4)
    assert_allclose(describe(3 * keypoints + 0.7, 12.5), vector, atol=1e-3)
    assert_allclose(describe(keypoints * np.array([-1, 1]), 12.5), vector, atol=1e-4)


def test_a_faster_motion_and_a_nearer_hand_change_the_vector():
    keypoints = people()
    vector = describe(keypoints, 12.5)
    assert np.abs(describe(keypoints, 25.0) - vector).max() > 1
    nearer = keypoints.copy()
    nearer[:, 0, 9] = nearer[:, 1, 0]
    assert np.abs(describe(nearer, 12.5) - vector).max() > 0.5


def test_only_the_middle_of_a_long_video_counts():
    keypoints = people(38)  # 3 seconds
    one = tracks(track(1, keypoints[:, 0]), track(2, keypoints[:, 1]), frames=38)
    padded = np.concatenate((keypoints[:1] + 9, keypoints, keypoints[-1:] - 9))
    longer = tracks(track(1, padded[:, 0]), track(2, padded[:, 1]), frames=40)
    assert_allclose(pose_vector(longer), pose_vector(one), atol=1e-4)


def test_a_gap_is_bridged_and_nobody_is_zero():
    keypoints = people(30)
    keypoints[:] = keypoints[:1] + np.linspace(0, 1, 30)[:, None, None, None]
    whole = tracks(track(1, keypoints[:, 0]), track(2, keypoints[:, 1]), frames=30)
    seen = track(2, keypoints[:, 1])
    keep = np.r_[0:10, 20:30]
    gappy = PoseTrack(
        number=2,
        **{
            name: getattr(seen, name)[keep]
            for name in (
                "frame_indices",
                "seconds",
                "keypoints",
                "boxes_xyxy",
                "scores",
                "observed",
            )
        },
    )
    found = pose_vector(tracks(whole.tracks[0], gappy, frames=30))
    assert_allclose(found, pose_vector(whole), atol=1e-3)
    assert float(pose_vector(tracks(frames=5)).abs().max()) == 0


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_videos_are_finite(frames: int):
    keypoints = people(frames)
    found = pose_vector(tracks(track(1, keypoints[:, 0]), frames=frames))
    assert bool(found.isfinite().all())
    assert found.shape == (POSE_DIM,)
