"""Frames of a live source: a camera, a network stream, a file that is still being written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from marey.errors import VideoError

STREAM_SCHEMES = (
    "rtsp://",
    "rtmp://",
    "udp://",
    "tcp://",
    "http://",
    "https://",
    "srt://",
    "rtp://",
)


class GrowingFile:
    """A file read as a stream: at its end, `read` waits for more until nothing has come for
    `idle_seconds`."""

    def __init__(self, path: str | Path, idle_seconds: float) -> None:
        self.stream = open(path, "rb")  # noqa: SIM115  (closed by close(), which iterate_live calls)
        self.idle_seconds = idle_seconds

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, waiting for them; empty only when the file has stopped
        growing."""
        give_up = time.monotonic() + self.idle_seconds
        while True:
            data = self.stream.read(size)
            if data or time.monotonic() >= give_up:
                return data
            time.sleep(0.05)

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def iterate_live(source: str, *, idle_seconds: float = 10.0) -> Iterator[tuple[float, Tensor]]:
    """Decode a live source frame by frame, one frame in memory at a time.

    Args:
        source: camera number ("0" is /dev/video0) or device, network address, or a file that may
            still grow (MPEG-TS, Matroska or fragmented MP4: formats that can be read before they
            are finished).
        idle_seconds: stop when nothing new has come for so long.

    Yields:
        (seconds since the first frame, uint8 (3, H, W) RGB).

    Raises:
        VideoError: if the source cannot be opened or holds no video.
    """
    growing = None if is_live(source) else _open_growing(source, idle_seconds)
    try:
        with _open(source, growing, idle_seconds) as container:
            if not container.streams.video:
                raise VideoError(f"{source}: no video stream; watch needs a source with pictures")
            first: float | None = None
            for frame in container.decode(container.streams.video[0]):
                seconds = frame.time if frame.time is not None else time.monotonic()
                first = seconds if first is None else first
                yield (
                    seconds - first,
                    torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1),
                )
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{source}: {error}; check the address, or that the file is MPEG-TS, Matroska or "
            "fragmented MP4 if it is still being written"
        ) from error
    finally:
        if growing is not None:
            growing.close()


Frame = tuple[float, Tensor]
"""Seconds, and uint8 (3, H, W)."""


def newest(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield the newest frame of a live source each time one is asked for, and drop those that came
    meanwhile, so that answers do not fall behind.

    A thread reads the source.

    Raises:
        VideoError: what reading the source raises.
    """
    arrived = threading.Condition()
    waiting: list[Frame] = []
    end: list[BaseException | None] = []
    closed = threading.Event()

    def read() -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                with arrived:
                    waiting[:] = [frame]
                    arrived.notify()
                if closed.is_set():
                    return
        except BaseException as caught:  # raised again where the frames are asked for
            error = caught
        finally:
            with arrived:
                end.append(error)
                arrived.notify()

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            with arrived:
                arrived.wait_for(lambda: waiting or end)
                if not waiting:
                    break
                frame = waiting.pop()
            yield frame
    finally:
        closed.set()
    if end[0] is not None:
        raise end[0]


def is_live(source: str) -> bool:
    """Return whether a source is a camera or an address, not a file."""
    return source.isdigit() or source.startswith("/dev/") or source.startswith(STREAM_SCHEMES)


def _open_growing(source: str, idle_seconds: float) -> GrowingFile:
    if not Path(source).is_file():
        raise VideoError(
            f"{source}: no such file; watch takes a camera number, a network address or a file"
        )
    return GrowingFile(source, idle_seconds)


def _open(source: str, growing: GrowingFile | None, idle_seconds: float) -> Any:
    if growing is not None:
        return av.open(growing, mode="r")
    if source.isdigit() or source.startswith("/dev/"):
        device = f"/dev/video{source}" if source.isdigit() else source
        if not Path(device).exists():
            raise VideoError(f"{device}: no such camera; list yours with 'ls /dev/video*'")
        return av.open(device, format="v4l2")
    options = {"rtsp_transport": "tcp"} if source.startswith("rtsp://") else {}
    return av.open(source, options=options, timeout=(10.0, idle_seconds))
