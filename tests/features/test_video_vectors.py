"""Vectors measured of a file, of a stretch of it and of frames in memory agree."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from marey.datasets.index import read_folders
from marey.errors import UserError
from marey.features.cache import FeatureCache
from marey.features.crops import CROP_DIM, crop_vector, people_square
from marey.features.video_vectors import VECTOR_DIMS, VideoVectors, crop_places, motion_places
from marey.features.videos import parts_of, stored_vectors
from marey.persons.pose_tracks import PoseTrack, PoseTracks
from marey.video.clip import Clip
from marey.video.decode import open_video
from marey.video.encode import write_video


def tracks_of(boxes: list[tuple[float, float, float, float]]) -> PoseTracks:
    """People who stand still in a picture of 96 x 64, boxes in pixels."""
    frames = np.arange(4)
    return PoseTracks(
        video="v",
        width=96,
        height=64,
        fps=12.5,
        frame_indices=frames,
        seconds=frames / 12.5,
        tracks=tuple(
            PoseTrack(
                number=number,
                frame_indices=frames,
                seconds=frames / 12.5,
                keypoints=np.zeros((4, 17, 3), np.float32),
                boxes_xyxy=np.tile(np.array(box, np.float32) / 64, (4, 1)),
                scores=np.ones(4, np.float32),
                observed=np.ones(4, bool),
            )
            for number, box in enumerate(boxes, start=1)
        ),
    )


@pytest.fixture
def video(tmp_path):
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (50, 3, 64, 96), generator=generator, dtype=torch.uint8)
    (tmp_path / "data" / "a").mkdir(parents=True)
    write_video(tmp_path / "data" / "a" / "v.mp4", frames, fps=25)
    return tmp_path / "data" / "a" / "v.mp4"


def whole_clip(path) -> Clip:
    with open_video(path) as reader:
        return reader.frames_at(range(len(reader)))


def test_a_file_and_its_frames_are_measured_alike(video):
    clip = whole_clip(video)
    vectors, poses = VideoVectors(("motion", "crops")), tracks_of([(10, 10, 40, 60)])
    of_file = vectors.of_file(video, poses=poses)
    of_clip = vectors.of_clip(clip, poses=poses)
    for name in vectors.names:
        assert of_file[name].shape == (VECTOR_DIMS[name],)
        assert_close(of_file[name], of_clip[name], atol=1e-4, rtol=1e-4)


def test_a_stretch_is_measured_like_a_file_of_it(video):
    vectors = VideoVectors(("motion",))
    stretch = vectors.of_file(video, start_seconds=1.0, end_seconds=2.0)["motion"]
    part = whole_clip(video).take(range(25, 50))
    assert_close(stretch, vectors.of_clip(part)["motion"], atol=1e-4, rtol=1e-4)
    whole = vectors.of_file(video)["motion"]
    assert float((stretch - whole).abs().max()) > 0.01


def test_what_is_stored_is_not_measured_again(video, tmp_path, monkeypatch):
    index, cache = read_folders(video.parents[1]), FeatureCache(tmp_path / "cache")
    sample = index.samples[0]
    first = stored_vectors(VideoVectors(("motion",)), sample, cache)
    monkeypatch.setattr(VideoVectors, "of_file", lambda *a, **k: pytest.fail("measured again"))
    again = stored_vectors(VideoVectors(("motion",)), sample, cache)
    assert_close(again["motion"], first["motion"], atol=0, rtol=0)


def test_packed_rows_are_measured_by_their_frames(tmp_path, monkeypatch):
    frames = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    packed = SimpleNamespace(frames=lambda row: frames, fps=12.5)
    monkeypatch.setattr("marey.features.videos.open_packed", lambda root: packed)
    (tmp_path / "packed.json").write_text("{}")
    sample = SimpleNamespace(row=3, start_seconds=None, end_seconds=None, path=tmp_path / "x")
    found = stored_vectors(
        VideoVectors(("motion",)), sample, FeatureCache(tmp_path / "cache"), tmp_path
    )
    assert found["motion"].shape == (VECTOR_DIMS["motion"],)


def test_the_square_holds_the_two_most_present_people():
    left, top, right, bottom = people_square(
        tracks_of([(10, 20, 20, 40), (40, 10, 50, 50), (90, 0, 96, 9)])
    )
    assert left <= 10
    assert top <= 10
    assert 50 <= right < 90
    assert bottom >= 50
    assert people_square(tracks_of([])) == (0, 0, 96, 64)


def test_only_what_is_in_the_square_counts():
    frames = torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8)
    people = tracks_of([(4, 10, 30, 50)])
    vector = crop_vector(frames, people)
    assert vector.shape == (CROP_DIM,)
    outside = frames.clone()
    outside[:, :, :, 80:] = 0
    assert_close(crop_vector(outside, people), vector, atol=0, rtol=0)
    assert float((crop_vector(frames.flip(0) // 2, people) - vector).abs().max()) > 0.1


def test_places_lie_in_the_middle_and_rise():
    times = [k / 25 for k in range(250)]
    places = motion_places(times, 10.0)
    assert (times[places[0]], len(places)) == (2.52, 62)
    assert crop_places(times, 10.0)[0] > 80
    assert motion_places([0.0], 0.04) == [0]
    assert len(crop_places([0.0, 0.1], 0.2)) == 8


def test_unknown_names_and_plus_signs_in_paths():
    with pytest.raises(UserError, match="unknown measure of videos 'colour'"):
        VideoVectors(("colour",))
    assert parts_of("hf:me/a+b+poses") == ["hf:me/a+b", "poses"]
    assert parts_of("frames+motion") == ["frames", "motion"]
