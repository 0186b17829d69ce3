"""Frames of a live source: a camera, a network stream, a file that is still being written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
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

CONNECTIONS = ("rtsp://", "rtmp://", "tcp://", "srt://")
"""Sources that end only when the connection does."""
MAX_PIXELS = 8192 * 4320
"""Largest picture that is decoded."""
MAX_LIVE_PIXELS = 1920 * 1088
"""Larger frames are reduced: many of them are kept."""
MAX_INDEX_BYTES = 1 << 26
"""Of the index of an MP4 file that are searched for fragments."""
BACKWARDS_SECONDS = 0.5
"""A step back by more is a clock that started again; by less, frames out of order."""
MAX_JUMP_SECONDS = 10.0
"""A step ahead by more is a clock that was set."""
MAX_LOST = 200
"""Undecodable packets in a row at the beginning after which the source is given up."""


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


Notice = Callable[[str], None]
"""Called with one line for the person who watches."""


def iterate_live(
    source: str, *, idle_seconds: float = 10.0, notice: Notice = lambda line: None
) -> Iterator[tuple[float, Tensor]]:
    """Decode a live source frame by frame, one frame in memory at a time.

    A source whose clock starts again, or jumps by more than `MAX_JUMP_SECONDS`, goes on where it
    was. Packets that cannot be decoded are passed over. Frames above `MAX_LIVE_PIXELS` are reduced.

    Args:
        source: camera number ("0" is /dev/video0) or device, network address, or a file: one that
            may still grow (MPEG-TS, Matroska or fragmented MP4: formats that can be read before
            they are finished), or one that is finished.
        idle_seconds: stop when nothing new has come for so long.
        notice: told when the clock starts again and when packets are lost.

    Yields:
        (seconds since the first frame, uint8 (3, H, W) RGB).

    Raises:
        VideoError: if the source cannot be opened or holds no video, or a connection ends.
    """
    growing = None
    if not is_live(source) and not is_finished_mp4(source):
        growing = _open_growing(source, idle_seconds)
    last: float | None = None
    try:
        with _open(source, growing, idle_seconds) as container:
            if not container.streams.video:
                raise VideoError(f"{source}: no video stream; watch needs a source with pictures")
            for last, frame in _in_time(_decoded(source, container, notice), notice):
                yield last, _rgb(frame)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(
            f"{source}: {error}; check the address, or that the file is MPEG-TS, Matroska or "
            "fragmented MP4 if it is still being written"
        ) from error
    finally:
        if growing is not None:
            growing.close()
    if source.startswith(CONNECTIONS):
        after = "before the first picture" if last is None else f"after {last:.1f} s"
        raise VideoError(
            f"{source}: the connection ended {after}; start the source and watch again"
        )


def _decoded(source: str, container: Any, notice: Notice) -> Iterator[Any]:
    """Frames of the first video stream; undecodable packets are counted and passed over."""
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(f"{source}: its codec cannot be decoded here; send H.264, for instance")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    lost = good = 0
    demuxed = iter(container.demux(stream))
    while True:
        try:
            packet = next(demuxed)
        except StopIteration:
            break
        except IndexError:  # a stream that began late; PyAV goes on when asked again
            demuxed = iter(container.demux(stream))
            continue
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            lost += 1
            if lost == 1:
                notice("packets of the source cannot be decoded; they are left out")
            if lost > MAX_LOST and not good:
                raise
            continue
        good += len(frames)
        yield from frames


def _in_time(frames: Iterator[Any], notice: Notice) -> Iterator[tuple[float, Any]]:
    """Frames with seconds since the first one, which never run backwards."""
    offset: float | None = None
    last, step = 0.0, 0.04
    for frame in frames:
        now = frame.time if frame.time is not None else time.monotonic()
        if offset is None:
            offset = now
        seconds = now - offset
        if seconds < last - BACKWARDS_SECONDS or seconds > last + MAX_JUMP_SECONDS:
            notice(f"the source's clock jumped at {last:.1f} s; going on from there")
            offset = now - last - step
            seconds = last + step
        elif seconds > last:
            step = min(seconds - last, 1.0)
        last = max(last, seconds)
        yield last, frame


def _rgb(frame: Any) -> Tensor:
    """uint8 (3, H, W), at most about `MAX_LIVE_PIXELS` pixels."""
    scale = min(1.0, (MAX_LIVE_PIXELS / (frame.width * frame.height)) ** 0.5)
    if scale < 1:
        width, height = int(frame.width * scale) or 1, int(frame.height * scale) or 1
        frame = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)


Frame = tuple[float, Tensor]
"""Seconds, and uint8 (3, H, W)."""


def newest(
    frames: Iterator[Frame], dropped: Callable[[int], None] = lambda count: None
) -> Iterator[Frame]:
    """Yield the newest frame of a live source each time one is asked for, and drop those that came
    meanwhile, so that answers do not fall behind.

    A thread reads the source.

    Args:
        frames: of the source.
        dropped: told how many frames were dropped before the one that is yielded next.

    Raises:
        VideoError: what reading the source raises.
    """
    arrived = threading.Condition()
    waiting: list[Frame] = []
    end: list[BaseException | None] = []
    closed = threading.Event()
    passed = [0]  # frames that came since the last one was taken

    def read() -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                with arrived:
                    waiting[:] = [frame]
                    passed[0] += 1
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
                missed, passed[0] = passed[0] - 1, 0
            if missed:
                dropped(missed)
            yield frame
    finally:
        closed.set()
    if end[0] is not None:
        raise end[0]


def is_live(source: str) -> bool:
    """Return whether a source is a camera or an address, not a file."""
    if source.startswith("/dev/shm/") or (source.startswith("/dev/") and Path(source).is_file()):
        return False
    return source.isdigit() or source.startswith("/dev/") or source.startswith(STREAM_SCHEMES)


def is_finished_mp4(source: str) -> bool:
    """Return whether a file is an MP4 or MOV with a whole index and without fragments.

    Its index often stands at the end, so it cannot be read as a stream; and it never grows.
    """
    path = Path(source)
    if not path.is_file():
        return False
    place, size = 0, path.stat().st_size
    with path.open("rb") as stream:
        while place + 8 <= size:
            stream.seek(place)
            header = stream.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if place == 0 and kind not in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
                return False
            if length == 1:  # a box of 64-bit length
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return False
            if kind == b"moov":
                rest = min(max(0, length - len(header)), MAX_INDEX_BYTES)
                return place + length <= size and b"mvex" not in stream.read(rest)
            place += length
    return False


def _open_growing(source: str, idle_seconds: float) -> GrowingFile:
    if not Path(source).is_file():
        raise VideoError(
            f"{source}: no such file; watch takes a camera number, a network address or a file"
        )
    return GrowingFile(source, idle_seconds)


def _open(source: str, growing: GrowingFile | None, idle_seconds: float) -> Any:
    if growing is not None:
        return av.open(growing, mode="r", metadata_errors="ignore")
    if source.isdigit() or source.startswith("/dev/"):
        device = f"/dev/video{source}" if source.isdigit() else source
        if not Path(device).exists():
            raise VideoError(f"{device}: no such camera; list yours with 'ls /dev/video*'")
        return av.open(device, format="v4l2", metadata_errors="ignore")
    if not is_live(source):
        return av.open(f"file:{source}", metadata_errors="ignore")
    options = {"rtsp_transport": "tcp"} if source.startswith("rtsp://") else {}
    return av.open(source, options=options, timeout=(10.0, idle_seconds), metadata_errors="ignore")
