"""Synthetic videos whose frame number is in their pixels, made with PyAV alone (CI has no ffmpeg
command)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

BITS = 7


def numbered_frame(number: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: seven vertical bars, bar b white where bit b of `number` is set, and a
    little moving texture."""
    bars = np.array([255 if number >> b & 1 else 0 for b in range(BITS)], np.uint8)
    row = bars[np.minimum(np.arange(width) * BITS // width, BITS - 1)]
    frame = np.repeat(np.repeat(row[None, :, None], height, 0), 3, 2).copy()
    frame[: height // 4, :, 1] = (frame[: height // 4, :, 1].astype(int) + 7 * number) % 97 + 60
    return frame


def number_in(frame: np.ndarray) -> int:
    """Read the number back from the lower half of an (H, W, 3) frame."""
    width = frame.shape[1]
    lower = frame[frame.shape[0] // 2 :].astype(float).mean(axis=(0, 2))
    return sum((lower[int((b + 0.5) * width / BITS)] > 127) << b for b in range(BITS))


@pytest.fixture(scope="session")
def read_number() -> Callable[[np.ndarray], int]:
    """Function from an (H, W, 3) frame to its number."""
    return number_in


def write(
    path: Path,
    *,
    num: int = 40,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (64, 84),
    gop: int = 12,
    b_frames: int = 0,
    pts: list[int] | None = None,
    fps: int = 25,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a numbered video; `pts` in milliseconds makes its frame rate vary."""
    height, width = size
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, pix_fmt
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "mpeg4", "mpeg2video"):
            stream.codec_context.max_b_frames = b_frames
        if codec == "mpeg4":
            stream.codec_context.bit_rate = 2_000_000
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(num):
            frame = av.VideoFrame.from_ndarray(
                numbered_frame(i, height, width), format="rgb24"
            ).reformat(format=pix_fmt)
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Function that writes a numbered video file (see `write`)."""
    return write


def decode_all(path: Path | str) -> tuple[list[np.ndarray], list[float]]:
    """Every frame by one plain linear pass of PyAV: upright RGB arrays, and times in seconds (nan
    where there is none)."""
    frames, seconds = [], []
    with av.open("file:" + str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
            seconds.append(
                float("nan") if frame.pts is None else float(frame.pts * frame.time_base)
            )
    return frames, seconds


@pytest.fixture(scope="session")
def brute_force() -> Callable[[Path | str], tuple[list[np.ndarray], list[float]]]:
    """The slow reference: decode the file from end to end."""
    return decode_all
