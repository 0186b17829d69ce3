"""One video stream through PyAV: an index of its shown frames, and the decoding of chosen ones.

The index is built by reading packets without decoding them where container and codec can be trusted to tell which frames are
shown and when, else by decoding the file once. Wanted frames are then reached from the key frame before them; H.264 and HEVC
frames that nobody asked for and no other frame refers to are dropped by the decoder undecoded.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from marey.errors import VideoError

DEMUXERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "gif", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "m4v", "h264",
            "hevc", "ivf", "obu", "av1", "yuv4mpegpipe", "mjpeg", "mxf", "nut", "dv", "rm", "wtv", "apng", "webp_pipe", "h263", "h261",
            "image2", "png_pipe", "jpeg_pipe", "bmp_pipe", "webp", "vc1", "swf", "dnxhd")
"""Container formats opened; playlists and scripts (hls, concat, dash, ...) are not, as they can point anywhere."""

TRUSTED_CONTAINERS = ("mov", "matroska", "flv")
"""Containers whose packets carry presentation times that match the frames shown."""
REORDERED = {"h264", "hevc", "av1", "vp9", "mpeg4"}
"""Codecs indexed by packets in a trusted container."""
PLAIN = {"mjpeg", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "h263", "flv1", "png", "ffv1", "huffyuv", "ffvhuff", "prores",
         "dnxhd", "rawvideo", "dvvideo", "utvideo", "magicyuv"}
"""Codecs without reordering: every packet is one frame, in order."""
DROPS_NONREF = {"h264", "hevc"}
"""Codecs whose decoder drops unwanted non-reference frames without changing any other."""
CACHE_BYTES = 32 << 20
"""Compressed packets are kept in memory up to this size, so that a short clip is read from disk once."""


@dataclass(frozen=True)
class Entry:
    """One shown frame."""

    pts: int | None
    """Presentation time, in time base units."""
    order: int
    """Place of its packet in decoding order (packet index), or of the frame itself (decoded index)."""
    key: bool
    """A decoder can start here."""
    duration: int
    """In time base units; 0 where unknown."""


class VideoFile:
    """The video stream of one file."""

    def __init__(self, path: str, *, threads: int, max_pixels: int, max_seconds: float,
                 cache_bytes: int = CACHE_BYTES, drop_nonref: bool = True) -> None:
        self.path, self.threads, self.max_pixels, self.max_seconds = path, threads, max_pixels, max_seconds
        self.cache_bytes, self.drop_nonref = cache_bytes, drop_nonref
        self.damaged: str | None = None
        self._packets: list[Any] | None = None
        if os.path.getsize(path) == 0:
            raise VideoError(f"{path}: is empty (0 bytes); copy or download it again")
        self._container = self._open()
        self._stream = self._video_stream()
        self._reformatter = av.video.reformatter.VideoReformatter()
        context = self._stream.codec_context
        self._check_size(context.width, context.height)
        try:
            self._index = self._index_packets()
            self.by_packets = self._index is not None
            if self._index is None:
                self._index = self._index_by_decoding()
            if not self._index:
                raise VideoError(f"{path}: holds no video frame that can be decoded; re-encode it or leave it out")
            self._times()
            self._look()
        except Exception:
            self.close()
            raise

    # ---------------------------------------------------------------- opening

    def _open(self) -> Any:
        try:
            return av.open("file:" + self.path, metadata_errors="ignore",
                           container_options={"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS),
                                              "pattern_type": "none"} if False else {"protocol_whitelist": "file"})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.path}: cannot be opened as a video ({_reason(error)}){self._cut_short()}; "
                             "check that it is a complete video file, or re-encode it") from error

    def _cut_short(self) -> str:
        with open(self.path, "rb") as file:
            head = file.read(12)
        return ": an MP4 whose index ('moov') is missing, as when a copy or recording broke off" if head[4:8] == b"ftyp" else ""

    def _video_stream(self) -> Any:
        streams = [s for s in self._container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams}) or ["nothing"]
            raise VideoError(f"{self.path}: has no video stream (only {', '.join(kinds)}); give a file with pictures in it")
        return streams[0]

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise VideoError(f"{self.path}: is {width} x {height} pixels, the limit is {self.max_pixels} in all; "
                             "shrink it or raise max_pixels")

    def close(self) -> None:
        """Release the file."""
        self._packets = None
        self._container.close()

    # ---------------------------------------------------------------- index

    def _demux(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size or packet.dts is not None:
                    yield packet
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self.damaged = self.damaged or f"reading stops early ({_reason(error)})"

    def _index_packets(self) -> list[Entry] | None:
        """List shown frames from packets alone; None where that cannot be trusted."""
        container, codec = self._container.format.name, self._stream.codec_context.name
        trusted = container.split(",")[0] in TRUSTED_CONTAINERS and codec in REORDERED
        if not trusted and not (codec in PLAIN or (codec == "mpeg4" and container == "avi")):
            return None
        entries, packets, size = [], [], 0
        for order, packet in enumerate(self._demux()):
            size += packet.size
            if size <= self.cache_bytes:
                packets.append(packet)
            if packet.size == 0 or packet.is_corrupt or (not trusted and codec == "mpeg4" and not _plain_vop(bytes(packet))):
                return None
            pts = packet.pts if trusted else (packet.pts if packet.pts is not None else packet.dts)
            if pts is None:
                return None
            if not packet.is_discard:
                entries.append(Entry(pts, order, packet.is_keyframe, packet.duration or 0))
        if size <= self.cache_bytes:
            self._packets = packets
        entries.sort(key=lambda entry: entry.pts or 0)
        if len({entry.pts for entry in entries}) != len(entries) or self.damaged:
            return None
        return entries

    def _index_by_decoding(self) -> list[Entry]:
        entries = []
        for order, frame in enumerate(self._decode_all()):
            entries.append(Entry(frame.pts, order, bool(frame.key_frame), frame.duration or 0))
        return entries

    def _times(self) -> None:
        base = self._stream.time_base
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        pts = [entry.pts for entry in self._index]
        if any(p is None for p in pts) or any(b <= a for a, b in zip(pts, pts[1:])):
            seconds = [float(i / rate) for i in range(len(pts))]
            last = float(1 / rate)
        else:
            seconds = [float((p - pts[0]) * base) for p in pts]
            steps = np.diff(seconds)
            usual = float(np.median(steps)) if len(steps) else float(1 / rate)
            last = float(self._index[-1].duration * base) or usual
        self.frame_seconds = tuple(seconds)
        self.duration_seconds = seconds[-1] + last
        fps = len(seconds) / self.duration_seconds
        self.fps = float(rate) if abs(fps / float(rate) - 1) < 2e-3 else fps

    def _look(self) -> None:
        """Size and rotation of the first frame."""
        self._quarter_turns, self.width, self.height = 0, 0, 0
        first = next(iter(self._frames([0])))[1]
        self._size = (first.width, first.height)
        self._quarter_turns = round(first.rotation / 90) % 4
        self.width, self.height = self._size if self._quarter_turns % 2 == 0 else self._size[::-1]

    # ---------------------------------------------------------------- decoding

    def _restart(self, pts: int | None) -> Iterator[Any]:
        """Packets from the key frame at `pts` on (from the start for None)."""
        context = self._stream.codec_context
        if not context.is_open:
            context.thread_type, context.thread_count = "FRAME" if self.threads > 1 else "NONE", self.threads
        else:
            context.flush_buffers()
        if pts is None:
            self._container.close()
            self._container = self._open()
            self._stream = self._video_stream()
            return self._demux()
        self._container.seek(pts, stream=self._stream, backward=True, any_frame=False)
        return self._demux()

    def _decode_all(self) -> Iterator[Any]:
        packets = self._restart(None)
        context = self._stream.codec_context
        context.thread_type, context.thread_count = "FRAME" if self.threads > 1 else "NONE", self.threads
        for packet in packets:
            try:
                yield from packet.decode()
            except av.error.InvalidDataError as error:
                self.damaged = self.damaged or f"a packet cannot be decoded ({_reason(error)})"
        try:
            yield from self._stream.codec_context.decode(None)
        except (av.error.InvalidDataError, av.error.EOFError):
            pass

    def _frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (index, frame) for sorted distinct indices, by a full linear pass."""
        want = set(indices)
        if self.by_packets:
            by_pts = {self._index[i].pts: i for i in indices}
            for frame in self._decode_all():
                if frame.pts in by_pts:
                    i = by_pts.pop(frame.pts)
                    yield i, frame
                    if not by_pts:
                        return
        else:
            for i, frame in enumerate(self._decode_all()):
                if i in want:
                    yield i, frame
                    want.remove(i)
                    if not want:
                        return

    def _rgb(self, frame: Any) -> np.ndarray:
        rgb = self._reformatter.reformat(frame, width=self._size[0], height=self._size[1], format="rgb24", threads=1)
        pixels = rgb.to_ndarray()
        return np.rot90(pixels, self._quarter_turns) if self._quarter_turns else pixels

    def stream(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 for increasing indices."""
        for _, frame in self._frames(indices):
            yield self._rgb(frame)

    def decode(self, indices: Sequence[int]) -> np.ndarray:
        """Return (n, H, W, 3) uint8 for increasing distinct indices."""
        out = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        count = 0
        for _, frame in self._frames(indices):
            out[count] = self._rgb(frame)
            count += 1
        if count < len(indices):
            raise VideoError(f"{self.path}: frame {indices[count]} of {len(self._index)} cannot be decoded; the file is damaged there: "
                             "re-encode it or leave it out")
        return out


def _plain_vop(packet: bytes) -> bool:
    """Whether an MPEG-4 part 2 packet holds exactly one coded picture that is not a B picture (no packed bitstream)."""
    at = packet.find(b"\x00\x00\x01\xb6")
    return (at >= 0 and at + 4 < len(packet) and packet[at + 4] >> 6 != 2 and len(packet) - at > 16
            and packet.find(b"\x00\x00\x01\xb6", at + 4) < 0)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())
