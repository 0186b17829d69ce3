"""The packets of a file's video stream through PyAV: opened within limits, read from the start or
from a key frame."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import av
from av.stream import Disposition

from marey.errors import VideoError
from marey.video.frame_index import FrameIndex, index_packets, packets_can_tell
from marey.video.packets import cut_short

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,asf,ogg,m4v,h264,hevc,ivf,obu,"
    "av1,yuv4mpegpipe,mjpeg,mxf,nut,dv,rm,wtv,apng,webp_pipe,h263,h261,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,"
    "vc1,swf,dnxhd,wav,mp3,flac,aac"
)
"""Formats opened. Playlists and scripts (hls, concat, dash, ...) are not: they can point at any
file or address."""
DROPS_NONREF = {"h264", "hevc"}
"""Codecs whose decoder drops an unwanted non-reference frame without changing any other
(MPEG-4 part 2 does not)."""
SEEKABLE = ("mpegts", "mpeg", "ogg", "asf", "matroska,webm")
"""Containers that find a key frame by its time; in others a decoded index is counted from the
start."""
ONE_THREAD = 4096 * 2304
"""Pixels of a frame above which it is decoded by one thread."""
FILE_ENDS_THERE = ("mov", "matroska", "avi", "flv")
"""Containers in which a packet marked corrupt means that the file broke off inside it."""


class PacketSource:
    """The packets of one file's first video stream, and the decoder they go to (`context`)."""

    def __init__(self, path: str, *, threads: int, max_pixels: int, drop_nonref: bool) -> None:
        """Open the file.

        Args:
            path: a local file.
            threads: of the decoder.
            max_pixels: largest width times height that the decoder allocates.
            drop_nonref: let the decoder drop frames that nobody asked for and no other frame refers
                to.

        Raises:
            VideoError: if the file cannot be opened or has no pictures.
        """
        self.path, self.threads, self.max_pixels, self.drop_nonref = (
            path,
            threads,
            max_pixels,
            drop_nonref,
        )
        self.damaged: str | None = cut_short(path)
        """None, or the first thing found wrong with the file."""
        self._kept: list[Any] | None = None  # every packet, where the file is small
        self._open()

    def _open(self) -> None:
        try:
            self._container: Any = av.open(
                "file:" + self.path,
                metadata_errors="ignore",
                options={
                    "protocol_whitelist": "file",
                    "format_whitelist": DEMUXERS,
                    "max_pixels": str(self.max_pixels),
                },
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self.unreadable(error) from error

        streams = [
            s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams}) or ["nothing"]
            self._container.close()
            raise VideoError(
                f"{self.path}: has no video stream (only {', '.join(kinds)}); give a file with "
                "pictures in it"
            )
        self.stream: Any = streams[0]
        self.context: Any = self.stream.codec_context
        if self.context is None:
            self._container.close()
            raise VideoError(
                f"{self.path}: uses a codec this FFmpeg cannot decode; re-encode it, for instance "
                "to H.264"
            )
        # Every thread of the decoder holds a picture of its own.
        threads = 1 if self.context.width * self.context.height > ONE_THREAD else self.threads
        self.context.thread_type = "FRAME" if threads > 1 else "NONE"
        self.context.thread_count = threads
        # The probe may report 0 x 0 (GIF): the decoder checks each picture before it allocates one.
        # It counts rows and
        # columns of padding too, hence the margin; the reader's own check of a decoded frame is
        # exact.
        self.context.options = {"max_pixels": str(self.max_pixels * 5 // 4 + (1 << 16))}

    def close(self) -> None:
        """Release the file, and the decoder with the pictures that it refers to."""
        self._kept = None
        if self._container is not None:
            self._container.close()
        self._container = self.context = self.stream = None

    @property
    def is_seekable(self) -> bool:
        """Return whether the container finds a key frame by its time."""
        return self._container.format.name in SEEKABLE

    # ---- damage ----

    def note(self, damage: str) -> None:
        """Keep the first thing that is found wrong with the file."""
        self.damaged = self.damaged or damage

    def unreadable(self, error: BaseException) -> VideoError:
        """Return the error of a file that FFmpeg refuses."""
        reason = self.reason(error)
        with open(self.path, "rb") as file:
            if file.read(12)[4:8] == b"ftyp" and isinstance(error, av.error.InvalidDataError):
                reason += "; an MP4 broken off before its index is written has none to read"
        return VideoError(
            f"{self.path}: cannot be read as a video ({reason}); check that the file is complete, "
            "or re-encode it"
        )

    def reason(self, error: BaseException) -> str:
        """Return what FFmpeg says, in one line; its "invalid argument" stands for two things that a
        user can fix."""
        if getattr(error, "errno", None) == errno.EINVAL:
            return f"not a format we open, or a picture beyond {self.max_pixels} pixels"
        return " ".join((getattr(error, "strerror", None) or str(error)).split())

    # ---- packets ----

    def packets(self) -> Iterator[Any]:
        """Yield packets from where the file stands to its end, or to the end of its readable
        part."""
        ends_there = self._container.format.name.split(",")[0] in FILE_ENDS_THERE
        try:
            for packet in self._demux():
                if packet.is_corrupt and ends_there:
                    self.note("the file breaks off inside a frame")
                    return
                if packet.size or packet.dts is not None:
                    yield packet
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self.note(f"reading stops early ({error.strerror})")

    def _demux(self) -> Iterator[Any]:
        """Packets of the stream; PyAV stops at the first packet of a stream that begins after the
        file was opened, and goes on when asked again."""
        while True:
            try:
                yield from self._container.demux(self.stream)
                return
            except IndexError:
                continue

    def index(self, cache_bytes: int) -> FrameIndex | None:
        """List the shown frames without decoding; None where packets cannot be trusted to tell.

        Args:
            cache_bytes: the packets are kept in memory if they are together not larger than this.
        """
        container, codec = (
            self._container.format.name.split(",")[0],
            self.context.codec.canonical_name,
        )
        if not packets_can_tell(container, codec):
            return None

        kept: list[Any] = []
        index = index_packets(
            keeping(kept, self.packets(), cache_bytes, lambda packet: packet.size), container, codec
        )
        if index is not None:
            present, named = len(index.order_of_pts), self.stream.frames
            if named > present and container == "mov":
                self.note(f"{present} of the {named} frames it names are present")
            self._kept = kept or None
        return index

    def from_start(self) -> Iterator[Any]:
        """Return every packet of the file, the decoder clean."""
        if self._kept is not None:
            if self.context.is_open:
                self.context.flush_buffers()
            return iter(self._kept)
        self._container.close()  # seeking to 0 is not exact in every container
        self._open()
        return self.packets()

    def between(self, first: int, last: int, wanted: set[int], index: FrameIndex) -> Iterator[Any]:
        """Yield packets first..last in decoding order, the decoder told before each whether it may
        drop it.

        Args:
            first: a key frame's packet.
            last: the last packet needed.
            wanted: packets whose frames are asked for.
            index: made from packets.
        """
        if self._kept is not None:
            if self.context.is_open:
                self.context.flush_buffers()
            numbered: Iterator[tuple[int, Any]] = zip(
                range(first, last + 1), self._kept[first : last + 1], strict=False
            )
        else:
            numbered = self._from_key(first, index)
        may_drop = self.drop_nonref and self.context.codec.canonical_name in DROPS_NONREF
        for order, packet in numbered:
            if order > last:
                return
            if may_drop:
                self.context.skip_frame = "DEFAULT" if order in wanted else "NONREF"
            yield packet

    def _from_key(self, first: int, index: FrameIndex) -> Iterator[tuple[int, Any]]:
        """Numbered packets from `first` on, found by their times; from the start where seeking
        lands behind it."""
        pts = next(pts for pts, order in index.keys if order == first)
        with contextlib.suppress(av.error.FFmpegError):
            self._seek(pts)
            packets = self.packets()
            for packet in packets:
                order = index.order_of_pts.get(packet.pts if packet.pts is not None else packet.dts)
                if order is None or order > first:
                    break
                if order == first:
                    yield first, packet
                    yield from enumerate(packets, first + 1)
                    return
        yield from (
            (order, packet) for order, packet in enumerate(self.from_start()) if order >= first
        )

    def after_seek(self, pts: int) -> Iterator[Any] | None:
        """Return the packets from a key frame's time or earlier, the decoder clean; None where
        seeking fails."""
        self.context.skip_frame = "DEFAULT"
        try:
            # Some containers seek by decoding time, which is earlier.
            self._seek(pts - round(1 / self.stream.time_base))
        except av.error.FFmpegError:
            return None
        self.context.flush_buffers()
        return self.packets()

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self.stream, backward=True, any_frame=False)


def keeping(
    kept: list[Any], items: Iterable[Any], room: int, size_of: Callable[[Any], int]
) -> Iterator[Any]:
    """Pass items on, and keep all of them in a list if they fit into `room` bytes; else the list
    ends up empty."""
    for item in items:
        room -= size_of(item)
        if room >= 0:
            kept.append(item)
        else:
            kept.clear()
        yield item
        del item
