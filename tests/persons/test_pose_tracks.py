from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from marey.errors import UserError, VideoError
from marey.persons import pose_tracks
from marey.persons.pose_tracks import PoseTrack, PoseTracks, read_poses
from marey.video.encode import write_video


@pytest.fixture(scope="module")
def found(walkers, auto):
    return read_poses(walkers, finder=auto)


def track(seconds, lefts, number=1):
    T = len(seconds)
    keypoints = np.ones((T, 17, 3), np.float32)
    keypoints[..., 0] = np.array(lefts, np.float32)[:, None]
    box = np.array([[x, 0, x + 0.2, 1] for x in lefts], np.float32)
    return PoseTrack(
        number=number,
        frame_indices=np.round(np.array(seconds) * 10).astype(np.int64),
        seconds=np.array(seconds, float),
        keypoints=keypoints,
        boxes_xyxy=box,
        scores=np.ones(T, np.float32),
        observed=np.ones(T, bool),
    )


def tracks(*given):
    seconds = np.arange(21) / 10
    return PoseTracks(
        video="v.mp4",
        width=200,
        height=100,
        fps=10,
        frame_indices=np.arange(21),
        seconds=seconds,
        tracks=given,
    )


def test_two_people_who_walk_past_each_other_are_two_tracks(found):
    assert len(found.tracks) == 2
    assert [len(person.seconds) for person in found.tracks] == [25, 25]
    big, small = found.tracks
    middle = [(p.boxes_xyxy[:, 0] + p.boxes_xyxy[:, 2]) / 2 for p in (big, small)]
    assert (np.diff(middle[0][::6]) > 0.05).all()
    assert (np.diff(middle[1][::6]) < -0.05).all()


def test_places_are_in_frame_heights(found):
    big = found.tracks[0]
    assert big.keypoints.dtype == np.float32
    assert big.keypoints.shape == (25, 17, 3)
    height = np.median(big.boxes_xyxy[:, 3] - big.boxes_xyxy[:, 1])
    assert height == pytest.approx(170 / 240, abs=0.06)
    # 4 pixels a frame, 12.5 frames a second, in heights of 240 pixels
    x = big.keypoints[:, 5:13, 0].mean(axis=1)
    assert np.polyfit(big.seconds, x, 1)[0] == pytest.approx(4 * 12.5 / 240, rel=0.1)


def test_a_lower_rate_looks_at_fewer_frames_at_their_times(walkers, auto):
    slow = read_poses(walkers, fps=5, finder=auto)
    assert len(slow.seconds) == 10
    assert set(slow.frame_indices) <= set(range(25))
    np.testing.assert_allclose(slow.seconds, slow.frame_indices / 12.5, atol=1e-3)
    assert len(slow.tracks) == 2


def test_a_rate_above_the_videos_own_looks_at_every_frame_once(walkers, movenet):
    assert len(read_poses(walkers, fps=100, finder=movenet).seconds) == 25


def test_only_the_most_present_people_are_kept(walkers, auto, found):
    one = read_poses(walkers, finder=auto, max_people=1)
    assert [person.number for person in one.tracks] == [found.tracks[0].number]


def test_a_still_picture_is_one_unmoving_track(draw, movenet, tmp_path):
    write_video(tmp_path / "still.mp4", draw([(90, 30, 200)]).expand(10, -1, -1, -1), fps=10)
    still = read_poses(tmp_path / "still.mp4", finder=movenet)
    assert len(still.tracks) == 1
    assert still.tracks[0].keypoints[..., :2].std(axis=0).max() < 0.02


def test_an_empty_scene_has_no_tracks_and_one_frame_is_enough_for_one(draw, movenet, tmp_path):
    write_video(tmp_path / "empty.mp4", draw([]).expand(6, -1, -1, -1), fps=10)
    assert read_poses(tmp_path / "empty.mp4", finder=movenet).tracks == ()
    write_video(tmp_path / "one.mp4", draw([(90, 30, 200)])[None], fps=10)
    assert len(read_poses(tmp_path / "one.mp4", finder=movenet).tracks) == 1


def test_stored_poses_come_back_the_same(found, tmp_path):
    found.save(tmp_path / "poses.npz")
    again = PoseTracks.load(tmp_path / "poses.npz")
    assert again.video == found.video
    np.testing.assert_array_equal(again.seconds, found.seconds)
    for ours, theirs in zip(again.tracks, found.tracks, strict=True):
        assert ours.number == theirs.number
        for name in pose_tracks.TRACK_ARRAYS:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_other_files_and_versions_are_refused_in_one_line(found, tmp_path, monkeypatch):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match=r"other.npz: holds no poses"):
        PoseTracks.load(tmp_path / "other.npz")
    found.save(tmp_path / "old.npz")
    monkeypatch.setattr(pose_tracks, "VERSION", 99)
    with pytest.raises(UserError, match=r"expected 99\); compute them again"):
        PoseTracks.load(tmp_path / "old.npz")


def test_mistakes_are_one_line(walkers, movenet):
    with pytest.raises(UserError, match="fps is above 0, got 0"):
        read_poses(walkers, fps=0, finder=movenet)
    with pytest.raises(UserError, match="max_people is at least 1, got 0"):
        read_poses(walkers, max_people=0, finder=movenet)
    with pytest.raises(VideoError, match="nosuch.mp4: there is no such file"):
        read_poses("nosuch.mp4", finder=movenet)


def test_a_short_gap_is_bridged_with_lower_scores_and_a_long_one_stays():
    whole = tracks()
    moments = [
        type("M", (), {"seconds": s, "frame_index": i})()
        for i, s in zip(whole.frame_indices, whole.seconds, strict=True)
    ]
    seen = track([0.0, 0.1, 0.4, 0.5, 1.5, 1.6], [0, 0.1, 0.4, 0.5, 1.5, 1.6])
    bridged = pose_tracks._bridged(seen, moments)
    np.testing.assert_allclose(bridged.seconds, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 1.6])
    np.testing.assert_array_equal(bridged.observed, [1, 1, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(bridged.keypoints[2:4, 0, 0], [0.2, 0.3], atol=1e-6)
    np.testing.assert_allclose(bridged.keypoints[2:4, 0, 2], 0.5)
    np.testing.assert_array_equal(bridged.frame_indices, [0, 1, 2, 3, 4, 5, 15, 16])


def test_between_two_moments_a_person_moves_straight_on():
    walk = tracks(track([0.0, 0.1, 1.5, 1.6], [0, 0.1, 1.5, 1.6]))
    (pose,) = walk.at(0.05)
    assert pose.keypoints[0, 0] == pytest.approx(0.05)
    assert pose.box_xyxy[0] == pytest.approx(0.05)
    (pose,) = walk.at(0.14)
    assert pose.box_xyxy[0] == pytest.approx(0.1)
    assert walk.at(0.8) == []
    assert walk.at(1.7) == []


def test_the_json_has_pixels_and_every_frame(found):
    entry = found.to_dict()
    json.dumps(entry)
    assert [frame["frame"] for frame in entry["frames"]] == found.frame_indices.tolist()
    person = entry["frames"][3]["persons"][0]
    big = found.tracks[0]
    assert person["track"] == big.number
    np.testing.assert_allclose(person["box_xyxy"], big.boxes_xyxy[3] * 240, atol=0.06)
    np.testing.assert_allclose(
        np.array(person["keypoints"])[:, :2], big.keypoints[3, :, :2] * 240, atol=0.06
    )
    assert len(person["keypoints"]) == 17
    assert entry["tracks"][0]["frames"] == 25


def test_a_video_without_people_has_all_frames_and_no_tracks():
    entry = replace(tracks(), tracks=()).to_dict()
    assert len(entry["frames"]) == 21
    assert entry["tracks"] == []


def test_a_video_played_backwards_has_the_same_finds_at_mirrored_times():
    given = tracks(track([0.5, 0.6, 0.9], [0.1, 0.2, 0.7]))
    backwards = given.reversed()
    [one] = backwards.tracks
    np.testing.assert_allclose(one.seconds, [1.1, 1.4, 1.5])
    np.testing.assert_allclose(one.keypoints[:, 0, 0], [0.7, 0.2, 0.1], rtol=1e-6)
    assert one.frame_indices.tolist() == [9, 6, 5]
    np.testing.assert_allclose(backwards.seconds, given.seconds, atol=1e-9)
    np.testing.assert_allclose(backwards.reversed().tracks[0].seconds, [0.5, 0.6, 0.9])
