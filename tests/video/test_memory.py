"""Memory is bounded by the reader, not by the size of a file's pictures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from marey.transforms import functional
from marey.transforms.preprocess import Preprocess
from marey.video import decode
from marey.video.decode import open_video
from marey.video.sampling import ClipSampling

MEASURE = """
import resource, sys
import torch
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video
from marey.video.sampling import ClipSampling

torch.set_num_threads(1)
preprocess = Preprocess(sampling=ClipSampling(num_frames=8, stride_frames=1))
preprocess.clip(torch.zeros(2, 3, 300, 300, dtype=torch.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_video(sys.argv[1]) as reader:
    views, clips = preprocess.views(reader, 3)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, *views.shape)
"""


def write(path: Path, codec: str, size: tuple[int, int], num_frames: int) -> Path:
    """Write a video of one grey per frame, in few seconds however large it is."""
    height, width = size
    options = {"preset": "ultrafast", "x264-params": "threads=1:rc-lookahead=0"}
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8, options=options if codec != "gif" else {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        frame = av.VideoFrame(width, height, pixels)
        for number in range(num_frames):
            for plane in frame.planes:
                plane.update(np.full(plane.buffer_size, 8 * number, np.uint8))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "codec", "size"),
    [
        ("8k.mp4", "libx264", (4320, 8192)),
        ("long.gif", "gif", (40000, 224)),
        ("large.gif", "gif", (5800, 5800)),
    ],
)
def test_views_of_huge_pictures_take_less_than_500_mb(
    tmp_path: Path, name: str, codec: str, size: tuple[int, int]
) -> None:
    path = write(tmp_path / name, codec, size, 24)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    megabytes, *shape = map(int, done.stdout.split())
    assert shape == [3, 8, 3, 224, 224]
    assert megabytes < 500


def test_frames_that_are_too_large_together_are_reduced_and_are_the_right_ones(
    tmp_path: Path,
    make_video: Callable[..., Path],
    read_number: Callable[[np.ndarray], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_video(tmp_path / "a.mp4")
    monkeypatch.setattr(decode, "CLIP_BYTES", 100_000)
    monkeypatch.setattr(decode, "REDUCED_BYTES", 50_000)
    with open_video(path) as reader:
        whole = reader.frames_at([3, 9, 20])
        small = reader.frames_at([3, 9, 20], held=20)
    assert whole.frames.shape[-2:] == (64, 84)
    assert small.frames.shape[-2:] < (64, 84)
    assert 20 * small.frames[0].numel() <= 50_000
    assert [read_number(f.permute(1, 2, 0).numpy()) for f in small.frames] == [3, 9, 20]


def test_parts_of_a_large_video_hold_fewer_frames(
    tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4")
    with open_video(path) as reader:
        usual = torch.cat([clip.frames for clip in reader.iterate(chunk=16)])
        monkeypatch.setattr(decode, "CHUNK_BYTES", 5 * 64 * 84 * 3)
        parts = [clip.frames for clip in reader.iterate(chunk=16)]
    assert [len(part) for part in parts] == [5] * 8
    assert torch.equal(torch.cat(parts), usual)


def test_the_crops_of_a_very_long_picture_are_those_of_the_resized_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 255, (2, 3, 20, 2), generator=generator).to(torch.uint8)
    frames = functional.resize(coarse, 640, 64)
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=2, stride_frames=1), short_side=40, image_size=32
    )
    crop = preprocess.geometry(frames)[0]
    whole = functional.resize_short_side(frames, 40)
    top, left = functional.crop_offsets(*whole.shape[-2:], 32, 1)[0]
    usual = functional.crop(whole, top, left, 32, 32)
    assert crop.shape == usual.shape == (2, 3, 32, 32)
    gap = (crop.int() - usual.int()).abs().float().mean()
    assert gap < 3
    start, _, end = preprocess.geometry(frames, 3)
    assert (start.int() - end.int()).abs().float().mean() > 10 * gap
