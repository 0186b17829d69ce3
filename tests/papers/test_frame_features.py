"""Stored features of every frame, and the clips that samplers draw from them."""

from __future__ import annotations

import pytest
import torch

from marey.datasets import open_dataset
from marey.features.cache import FeatureCache
from marey.papers import frame_features
from marey.papers.frame_features import FrameFeatures, pool, seen
from marey.video.decode import open_video
from marey.video.encode import write_video
from marey.video.sampling import ClipSampling


class Means(torch.nn.Module):
    """A network that gives the mean colour of each of 4 x 4 cells."""

    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.AvgPool2d(32)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_features, "imagenet_stem", Means)
    path = tmp_path / "videos" / "run" / "a.mp4"
    path.parent.mkdir(parents=True)
    frames = torch.arange(12, dtype=torch.uint8).mul(20)[:, None, None, None]
    write_video(path, frames.expand(12, 3, 64, 64).contiguous(), 10)
    return FrameFeatures(FeatureCache(tmp_path / "cache")), open_dataset(
        tmp_path / "videos"
    ).samples


def direct(path, sampling: ClipSampling) -> torch.Tensor:
    with open_video(path) as reader:
        clip = seen(sampling).views(reader)[0]
    return Means().trunk(clip[0]).flatten(2).transpose(1, 2)


@pytest.mark.parametrize(
    "sampling",
    [
        ClipSampling(kind="equidistant", num_frames=4),
        ClipSampling(num_frames=4, stride_frames=2),
        ClipSampling(num_frames=4, stride_frames=6, short="extend"),
        ClipSampling(num_frames=4, stride_frames=6, short="extend_after"),
        ClipSampling(kind="random", num_frames=4),
    ],
)
def test_stored_frames_give_the_clip_that_the_video_gives(store, sampling):
    features, samples = store
    found = features.clip(samples[0], sampling, 4, None)
    torch.testing.assert_close(found, direct(samples[0].path, sampling), atol=0.02, rtol=0.02)


def test_a_video_is_encoded_once(store, monkeypatch):
    features, samples = store
    first = features.clip(samples[0], ClipSampling(kind="equidistant", num_frames=3), 2, None)
    assert first.shape == (3, 4, 3)
    monkeypatch.setattr(FrameFeatures, "_encode", lambda *_: pytest.fail("encoded again"))
    features.videos.clear()
    generator = torch.Generator().manual_seed(0)
    features.clip(samples[0], ClipSampling(kind="random", num_frames=5), 2, generator)


def test_cells_are_averaged():
    cells = torch.arange(16.0).view(1, 16, 1)
    assert pool(cells, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.equal(pool(cells, 4), cells)
