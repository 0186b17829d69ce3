"""Answers drawn on a copy of the video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marey.inference.annotate import (
    MIN_SIDE,
    annotate_persons,
    annotate_poses,
    annotate_segments,
    annotate_video,
    persons_at,
)
from marey.inference.detector import Detections, Moment, Person
from marey.persons.blur import Blur
from marey.persons.pose_tracks import read_poses
from marey.persons.sources import pose_finder
from marey.video.decode import open_video


def person(track: int, left: float) -> Person:
    return Person(
        track=track, box_xyxy_norm=(left, 0.1, left + 0.3, 0.9), score=0.9, probabilities=(0.8, 0.1)
    )


def found(video: str = "scene.mp4") -> Detections:
    """One person who moves, another who is seen at the second key frame only."""
    moments = (
        Moment(seconds=0.5, frame_index=2, persons=(person(1, 0.1),)),
        Moment(seconds=1.5, frame_index=6, persons=(person(1, 0.2), person(2, 0.6))),
    )
    return Detections(
        video=video, width=64, height=48, class_names=("walk", "run"), moments=moments
    )


def test_between_key_frames_a_box_moves_evenly() -> None:
    [shown] = persons_at(found(), 0.75)
    assert shown.track == 1
    assert shown.box_xyxy_norm == pytest.approx((0.125, 0.1, 0.425, 0.9))


def test_a_box_without_a_partner_is_drawn_near_its_own_key_frame_only() -> None:
    assert [shown.track for shown in persons_at(found(), 0.8)] == [1]
    assert [shown.track for shown in persons_at(found(), 1.2)] == [1, 2]
    assert [shown.track for shown in persons_at(found(), 2.0)] == [1, 2]


def test_copies_have_every_frame_and_differ_from_the_source(
    day_and_night: Path, tmp_path: Path
) -> None:
    annotate_video(day_and_night, tmp_path / "a.mp4", [("walk", 0.8)])
    annotate_segments(
        day_and_night, tmp_path / "s.mp4", [(0.0, 1.0, "walk", 0.8), (1.0, 9.0, "run", 0.7)]
    )
    annotate_persons(day_and_night, tmp_path / "p.mp4", found(str(day_and_night)))
    with open_video(day_and_night) as reader:
        num_frames, first = reader.num_frames, reader.frames_at([0]).frames
    for name in ("a", "s", "p"):
        with open_video(tmp_path / f"{name}.mp4") as reader:
            assert reader.num_frames == num_frames
            copy = reader.frames_at([0]).frames
        high, wide = first.shape[-2:]
        scale = copy.shape[-1] // wide
        assert min(scale * high, scale * wide) >= MIN_SIDE
        if name == "p":
            assert copy.shape[-2] == scale * high
        else:  # the panel stands below the picture
            assert copy.shape[-2] > scale * high


def test_followed_people_move_on_every_frame_and_keep_the_nearest_actions(walkers: Path) -> None:
    poses = read_poses(walkers, finder=pose_finder("auto", threads=1))
    number = poses.tracks[0].number
    early = Person(track=number, box_xyxy_norm=(0, 0, 1, 1), score=0.9, probabilities=(0.9, 0.1))
    late = replace(early, probabilities=(0.1, 0.9))
    detections = Detections(
        video=str(walkers),
        width=320,
        height=240,
        class_names=("walk", "run"),
        moments=(
            Moment(seconds=0.2, frame_index=2, persons=(early,)),
            Moment(seconds=1.6, frame_index=20, persons=(late,)),
        ),
        poses=poses,
    )
    lefts = []
    for seconds in np.arange(0.0, 1.9, 0.04):
        shown = {entry.track: entry for entry in persons_at(detections, float(seconds))}
        assert len(shown) == 2
        assert shown[number].person == (early if seconds < 0.9 else late)
        assert shown[number].keypoints.shape == (17, 3)
        lefts.append(shown[number].box_xyxy_norm[0])
        others = [entry.person for track, entry in shown.items() if track != number]
        assert others == [None]
    assert (np.diff(np.convolve(lefts, np.ones(8) / 8, "valid")) > 0).mean() > 0.9


def test_skeletons_are_drawn_and_faces_blurred_in_a_copy(walkers: Path, tmp_path: Path) -> None:
    poses = read_poses(walkers, finder=pose_finder("auto", threads=1))
    annotate_poses(walkers, tmp_path / "plain.mp4", poses)
    annotate_poses(walkers, tmp_path / "blurred.mp4", poses, blur=Blur("persons"))
    annotate_poses(walkers, tmp_path / "nobody.mp4", replace(poses, tracks=()))
    frames = {}
    for name in ("plain", "blurred", "nobody"):
        with open_video(tmp_path / f"{name}.mp4") as reader:
            assert reader.num_frames == 25
            frames[name] = reader.frames_at([12]).frames[0].float()
    drawn = (frames["plain"] - frames["nobody"]).abs().amax(dim=0) > 60
    assert 0.002 < drawn.float().mean() < 0.2
    changed = (frames["plain"] - frames["blurred"]).abs().amax(dim=0) > 30
    assert 0.02 < changed.float().mean() < 0.6
