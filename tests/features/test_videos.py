"""Embeddings of videos are computed once; an unreadable video is named and nothing is lost."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from marey.checkpoints.encoders import LoadedEncoder, bundled_frames, frames_preprocess
from marey.datasets.index import read_folders
from marey.errors import UserError
from marey.features.cache import FeatureCache
from marey.features.videos import VideoEncoder, encode_videos
from marey.video.encode import write_video


@pytest.fixture
def encoder() -> VideoEncoder:
    return small_encoder()


def small_encoder() -> VideoEncoder:
    network = bundled_frames(num_frames=2, image_size=32, grid=1)
    small = LoadedEncoder(encoder=network, preprocess=frames_preprocess(2, 32), source="small")
    return VideoEncoder("frames", loaded=small)


@pytest.fixture
def index(tmp_path):
    for number, name in enumerate(("a", "b", "b")):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(number)
        frames = torch.randint(0, 256, (12, 3, 48, 64), generator=generator, dtype=torch.uint8)
        write_video(folder / f"{number}.mp4", frames, fps=8)
    (tmp_path / "data" / "b" / "broken.mp4").write_bytes(b"no video")
    return read_folders(tmp_path / "data")


def test_a_second_pass_reads_what_is_stored(encoder, index, tmp_path, monkeypatch):
    cache, ticks = FeatureCache(tmp_path / "cache"), []
    first = encode_videos(
        encoder, index, views=2, cache=cache, tick=lambda done, total: ticks.append((done, total))
    )
    assert first.features.shape == (3, 2, encoder.clips.encoder.embed_dim)
    assert [entry["video"] for entry in first.unreadable] == ["b/broken.mp4"]
    assert len(first.index) == 3
    assert ticks[-1] == (4, 4)

    monkeypatch.setattr(
        encoder.clips.encoder, "forward", lambda clip: pytest.fail("computed again")
    )
    again = encode_videos(encoder, index, views=2, cache=cache)
    assert_close(again.features, first.features, atol=0, rtol=0)


def test_other_weights_and_a_changed_file_have_other_keys(encoder, index, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    first = encode_videos(encoder, index, views=1, cache=cache).features
    with torch.no_grad():
        encoder.clips.encoder.trunk._blocks[-1]._bn2.bias.add_(1)
    other = encode_videos(
        VideoEncoder("frames", loaded=encoder.clips), index, views=1, cache=cache
    ).features
    assert float((first - other).abs().max()) > 0.5

    frames = torch.zeros(12, 3, 48, 64, dtype=torch.uint8)
    write_video(index.samples[0].path, frames, fps=8)
    changed = encode_videos(
        VideoEncoder("frames", loaded=encoder.clips), index, views=1, cache=cache
    ).features
    assert float((changed[0] - other[0]).abs().max()) > 0.01
    assert_close(changed[1:], other[1:], atol=0, rtol=0)


def test_encoders_that_do_not_go_together_are_named():
    for source in ("frames+frames", "frames+hf:x/y", "poses+poses"):
        with pytest.raises(UserError, match="one encoder of clips and any of motion, crops, poses"):
            VideoEncoder(source)


def test_some_of_the_videos_keep_their_rows(encoder, index, tmp_path):
    found = encode_videos(encoder, index, views=1, cache=FeatureCache(tmp_path / "cache"))
    assert found.positions == [0, 1, 2]
    part = found.only([0, 2])
    assert_close(part.features, found.features[[0, 2]], atol=0, rtol=0)
    assert part.index.samples == (index.samples[0], index.samples[2])
