"""The pixel limit holds where the probe does not know the size, and before a frame is allocated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from marey.errors import PixelLimitError
from marey.video.decode import open_video

FILES = {
    "a.gif": ("gif", "rgb8", {}),
    "a.apng": ("apng", "rgb24", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9.ivf": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {}),
    "mpeg2.m2v": ("mpeg2video", "yuv420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mjpeg.mjpeg": ("mjpeg", "yuvj420p", {}),
    "h264.ts": ("libx264", "yuv420p", {"preset": "ultrafast"}),
}
"""Codec, pixel format and encoder options of each file."""

MEASURE = """
import resource, sys
from marey.video.decode import open_video
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_video(sys.argv[1])
except ValueError as error:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(type(error).__name__, (peak - before) // 1024)
"""


def write(path: Path, width: int, height: int) -> Path:
    codec, pixel_format, options = FILES[path.name]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        frame = av.VideoFrame(width, height, pixel_format)
        for plane in frame.planes:
            plane.update(np.full(plane.buffer_size, 128, np.uint8))
        for pts in range(3):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", FILES)
def test_frames_beyond_the_limit_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, 640, 480)
    with pytest.raises(PixelLimitError, match=rf"^{path}: .*10000 pixels.*raise max_pixels"):
        open_video(path, max_pixels=10_000)


@pytest.mark.parametrize("name", FILES)
def test_the_limit_is_exact(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, 100, 60)  # padded to 112 x 64 by some decoders
    with open_video(path, max_pixels=100 * 60) as reader:
        assert reader.frames_at([0]).frames.shape[-2:] == (60, 100)
    with pytest.raises(PixelLimitError, match=rf"^{path}: "):
        open_video(path, max_pixels=100 * 60 - 1)


def test_a_refused_frame_is_not_allocated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gif", 8000, 8000)  # 256 MB a frame
    assert path.stat().st_size < 100_000
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    ).stdout
    error, megabytes = said.split()
    assert error == "PixelLimitError"
    assert int(megabytes) < 100


def test_the_shared_gif_costs_no_more_than_a_plain_prediction(shared_dir: Path) -> None:
    run = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'marey', 'predict', sys.argv[1]], "
        "capture_output=True)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n"
        "print(done.stderr.decode())"
    )
    peaks = []
    gif = shared_dir / "reliability" / "gif_8000x8000.gif"
    if not gif.is_file():
        pytest.skip(f"{gif} is absent")
    plain = Path(__file__).parents[2] / "examples" / "walk.mp4"
    for video, status in ((plain, "0"), (gif, "1")):  # 1: a video of the job cannot be read
        said = subprocess.run(
            [sys.executable, "-c", run, str(video)], capture_output=True, text=True, check=True
        ).stdout
        first, *rest = said.splitlines()
        assert first.split()[0] == status, rest
        peaks.append(int(first.split()[1]))
    assert f"{gif}: its frames go beyond 35389440 pixels" in said
    assert peaks[1] < peaks[0] + 500
