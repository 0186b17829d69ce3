"""One video stream through PyAV: opening it within limits, and decoding chosen frames.

Wanted frames are reached from the key frame before them; in
H.264 and HEVC the decoder drops, undecoded, frames that nobody asked for and no other frame refers to. Whatever does
not come out that way is looked for once more by decoding everything from the start; what is still missing is an error
that names the frame.
"""

from __future__ import annotations

import contextlib
import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from marey.errors import PixelLimitError, VideoError
from marey.video.frame_index import FrameIndex, frame_times, index_frames, index_packets, packets_can_tell
from marey.video.packets import cut_short
from marey.video.rgb import quarter_turns, upright_rgb

DEMUXERS = ("mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,asf,ogg,m4v,h264,hevc,ivf,obu,"
            "av1,yuv4mpegpipe,mjpeg,mxf,nut,dv,rm,wtv,apng,webp_pipe,h263,h261,png_pipe,jpeg_pipe,bmp_pipe,tiff_pipe,"
            "vc1,swf,dnxhd,wav,mp3,flac,aac")
"""Formats opened. Playlists and scripts (hls, concat, dash, ...) are not: they can point at any file or address."""
DROPS_NONREF = {"h264", "hevc"}
"""Codecs whose decoder drops an unwanted non-reference frame without changing any other (MPEG-4 part 2 does not)."""
SEEKABLE = ("mpegts", "mpeg", "ogg", "asf", "matroska,webm")
"""Containers that find a key frame by its time; in others a decoded index is counted from the start."""
CACHE_BYTES = 32 << 20
"""Compressed packets are kept in memory up to this size, so that a short clip is read from disk once; frames decoded to
build an index up to twice that, so that it is decoded once."""
FILE_ENDS_THERE = ("mov", "matroska", "avi", "flv")
"""Containers in which a packet marked corrupt means that the file broke off inside it."""


class VideoFile:
    """The video stream of one file; `frame_seconds`, `fps`, sizes and `damaged` are set on construction."""

    def __init__(self, path: str, *, threads: int, max_pixels: int, max_seconds: float, cache_bytes: int = CACHE_BYTES,
                 drop_nonref: bool = True) -> None:
        self.path, self.threads, self.max_pixels, self.max_seconds = path, threads, max_pixels, max_seconds
        self.cache_bytes, self.drop_nonref = cache_bytes, drop_nonref
        if os.path.getsize(path) == 0:
            raise VideoError(f"{path}: is empty (0 bytes); copy or download it again")
        self.damaged: str | None = cut_short(path)
        self._packets: list[Any] | None = None                     # every packet, where the file is small
        self._decoded: list[Any] | None = None                     # every frame, where that was needed and is small
        self._reformatter = VideoReformatter()
        self._turn = 0
        self._refused = False                                      # the decoder met a picture beyond max_pixels
        self._open()
        try:
            self._check_limits()
            index = self._index_packets()
            self.by_packets = index is not None
            self._index = self._index_frames() if index is None else index
            if not self._index.entries:
                self._check_refused()
                why = f" ({self.damaged})" if self.damaged else ""
                raise VideoError(f"{path}: holds no frame that can be decoded{why}; re-encode it or leave it out")
            self._set_times()
            self._look_at_first_frame()
        except av.error.FFmpegError as error:
            self.close()
            raise self._unreadable(error) from error
        except BaseException:
            self.close()
            raise

    # ---- opening ----

    def _open(self) -> None:
        try:
            self._container: Any = av.open("file:" + self.path, metadata_errors="ignore", options={
                "protocol_whitelist": "file", "format_whitelist": DEMUXERS, "max_pixels": str(self.max_pixels)})
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._unreadable(error) from error
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = sorted({s.type for s in self._container.streams}) or ["nothing"]
            self._container.close()
            raise VideoError(f"{self.path}: has no video stream (only {', '.join(kinds)}); give a file with pictures "
                             "in it")
        self._stream: Any = streams[0]
        context = self._stream.codec_context
        if context is None:
            self._container.close()
            raise VideoError(f"{self.path}: uses a codec this FFmpeg cannot decode; re-encode it, for instance to "
                             "H.264")
        context.thread_type, context.thread_count = "FRAME" if self.threads > 1 else "NONE", self.threads
        # The probe may report 0 x 0 (GIF): the decoder checks each picture before it allocates one. It counts rows and
        # columns of padding too, hence the margin; `_check_size` is exact.
        context.options = {"max_pixels": str(self.max_pixels * 5 // 4 + (1 << 16))}

    def _unreadable(self, error: BaseException) -> VideoError:
        reason = self._reason(error)
        with open(self.path, "rb") as file:
            if file.read(12)[4:8] == b"ftyp" and isinstance(error, av.error.InvalidDataError):
                reason += "; an MP4 broken off before its index is written has none to read"
        return VideoError(f"{self.path}: cannot be read as a video ({reason}); check that the file is complete, or "
                          "re-encode it")

    def _reason(self, error: BaseException) -> str:
        """What FFmpeg says, in one line; its "invalid argument" stands for two things that a user can mend."""
        if getattr(error, "errno", None) == errno.EINVAL:
            return f"not a format we open, or a picture beyond {self.max_pixels} pixels"
        return " ".join((getattr(error, "strerror", None) or str(error)).split())

    def _check_limits(self) -> None:
        context = self._stream.codec_context
        self._check_size(context.width, context.height)
        if self._stream.duration and self._stream.time_base:
            self._check_seconds(float(self._stream.duration * self._stream.time_base))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise PixelLimitError(f"{self.path}: is {width} x {height}, the limit is {self.max_pixels} pixels in all; "
                                  "shrink it or raise max_pixels")

    def _check_refused(self) -> None:
        if self._refused:
            raise PixelLimitError(f"{self.path}: its frames go beyond {self.max_pixels} pixels, the limit; shrink it "
                                  "or raise max_pixels")

    def _check_seconds(self, seconds: float) -> None:
        if seconds > self.max_seconds:
            raise VideoError(f"{self.path}: lasts {seconds:.0f} s, the limit is {self.max_seconds:.0f} s; cut it or "
                             "raise max_seconds")

    def close(self) -> None:
        """Release the file."""
        self._packets = self._decoded = None
        self._container.close()

    # ---- index ----

    def _demux(self) -> Iterator[Any]:
        """Packets from where the container stands; ends at the end of the file or of its readable part."""
        ends_there = self._container.format.name.split(",")[0] in FILE_ENDS_THERE
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt and ends_there:
                    self._note("the file breaks off inside a frame")
                    return
                if packet.size or packet.dts is not None:
                    yield packet
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self._note(f"reading stops early ({error.strerror})")

    def _note(self, damage: str) -> None:
        self.damaged = self.damaged or damage

    def _index_packets(self) -> FrameIndex | None:
        """List the shown frames without decoding; None where packets cannot be trusted to tell."""
        container = self._container.format.name.split(",")[0]
        codec = self._stream.codec_context.codec.canonical_name
        if not packets_can_tell(container, codec):
            return None

        kept: list[Any] = []
        packets = _keeping(kept, self._demux(), self.cache_bytes, lambda packet: packet.size)
        index = index_packets(packets, container, codec)
        if index is not None:
            present, named = len(index.order_of_pts), self._stream.frames
            if named > present and container == "mov":
                self._note(f"{present} of the {named} frames it names are present")
            self._packets = kept or None
        return index

    def _index_frames(self) -> FrameIndex:
        """Decode the file once and list the frames."""
        kept: list[Any] = []
        frames = _keeping(kept, self._checked(self._decode_all()), 2 * self.cache_bytes,
                          lambda frame: sum(plane.buffer_size for plane in frame.planes))
        index = index_frames(frames, seekable=self._container.format.name in SEEKABLE)
        self._decoded = kept or None
        return index

    def _checked(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Pass decoded frames on as long as they stay within the limits of size and duration."""
        base, first = self._stream.time_base or Fraction(0), None
        for order, frame in enumerate(frames):
            self._check_size(frame.width, frame.height)
            first = frame.pts if order == 0 else first
            if frame.pts is not None and first is not None and order % 64 == 0:
                self._check_seconds(float((frame.pts - first) * base))
            yield frame

    def _set_times(self) -> None:
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.frame_seconds, self.duration_seconds, self.fps = frame_times(self._index.entries, self._stream.time_base,
                                                                          rate)

    def _look_at_first_frame(self) -> None:
        first = next((frame for _, frame in self._frames([0])), None)
        if first is None:
            self._check_refused()
            raise VideoError(f"{self.path}: its first frame cannot be decoded; the file is damaged: re-encode it or "
                             "leave it out")
        self._check_size(first.width, first.height)
        self._size = (first.width, first.height)
        self._turned = quarter_turns(first)
        self.width, self.height = self._size[::-1] if self._turned[0] else self._size

    # ---- decoding ----

    def _feed(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Frames out of packets, the decoder drained at the end; undecodable packets are noted and passed over."""
        context = self._stream.codec_context
        for packet in packets:
            try:
                yield from context.decode(packet)
            except av.error.FFmpegError as error:
                # FFmpeg answers a refused size with EINVAL, and leaves the context without one
                if error.errno == errno.EINVAL and context.width * context.height == 0:
                    self._refused = True
                self._note(f"a packet cannot be decoded ({self._reason(error)})")
        with contextlib.suppress(av.error.FFmpegError):
            yield from context.decode(None)

    def _from_start(self) -> Iterator[Any]:
        """Every packet of the file, the decoder clean."""
        if self._packets is not None:
            if self._stream.codec_context.is_open:
                self._stream.codec_context.flush_buffers()
            return iter(self._packets)
        self._container.close()                                    # seeking to 0 is not exact in every container
        self._open()
        return self._demux()

    def _decode_all(self) -> Iterator[Any]:
        packets = self._from_start()
        self._stream.codec_context.skip_frame = "DEFAULT"
        return self._feed(packets)

    def _frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (index, frame) for increasing distinct indices; frames that cannot be decoded are left out."""
        if not self.by_packets:
            yield from self._count_frames(indices)
            return
        missing = dict.fromkeys(indices)
        for first, last, group in self._index.runs(indices):
            by_pts = {self._index.entries[i].pts: i for i in group}
            for frame in self._feed(self._packets_between(first, last, {self._index.entries[i].order for i in group})):
                index = by_pts.pop(frame.pts, None)
                if index is not None:
                    # an earlier one did not come out: start over, thoroughly
                    if next(iter(missing)) != index:
                        break
                    del missing[index]
                    yield index, frame
            if by_pts:
                break
        if missing:
            by_pts = {self._index.entries[i].pts: i for i in missing}
            for frame in self._decode_all():
                index = by_pts.pop(frame.pts, None)
                if index is not None:
                    yield index, frame
                if not by_pts:
                    return

    def _count_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """As `_frames`, for a decoded index: kept frames, else after a seek by time, else counted from the start."""
        if self._decoded is not None:
            yield from ((i, self._decoded[i]) for i in indices)
            return
        done = 0
        if self._index.keys and self._index.keys[0][1] <= indices[0]:
            for index, frame in self._frames_after_seek(indices):
                if index != indices[done]:
                    break
                yield index, frame
                done += 1
        if done == len(indices):
            return
        for place, frame in enumerate(self._decode_all()):
            if place == indices[done]:
                yield place, frame
                done += 1
                if done == len(indices):
                    return

    def _frames_after_seek(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Frames of a decoded index, each run from the key frame before it, known by their times."""
        context = self._stream.codec_context
        for _, _, group in self._index.runs(indices):
            by_pts = {self._index.entries[i].pts: i for i in group}
            pts = self._index.keys[bisect_right(self._index.keys, group[0], key=lambda pair: pair[1]) - 1][0]
            context.skip_frame = "DEFAULT"
            # some containers seek by decoding time, which is earlier
            early = pts - round(1 / self._stream.time_base)
            try:
                self._container.seek(early, stream=self._stream, backward=True, any_frame=False)
            except av.error.FFmpegError:
                return
            context.flush_buffers()
            for frame in self._feed(self._demux()):
                if frame.pts is None or frame.pts < pts:
                    continue                                       # may lack its references
                index = by_pts.pop(frame.pts, None)
                if index is not None:
                    yield index, frame
                if not by_pts:
                    break
            if by_pts:
                return

    def _packets_between(self, first: int, last: int, wanted: set[int]) -> Iterator[Any]:
        """Packets first..last in decoding order, the decoder told before each whether it may drop it."""
        if self._packets is not None:
            if self._stream.codec_context.is_open:
                self._stream.codec_context.flush_buffers()
            numbered: Iterator[tuple[int, Any]] = zip(range(first, last + 1), self._packets[first:last + 1],
                                                      strict=False)
        else:
            numbered = self._seek(first)
        context = self._stream.codec_context
        may_drop = self.drop_nonref and context.codec.canonical_name in DROPS_NONREF
        for order, packet in numbered:
            if order > last:
                return
            if may_drop:
                context.skip_frame = "DEFAULT" if order in wanted else "NONREF"
            yield packet

    def _seek(self, first: int) -> Iterator[tuple[int, Any]]:
        """Numbered packets from `first` on, found by their times; from the start where seeking lands behind it."""
        pts = next(pts for pts, order in self._index.keys if order == first)
        with contextlib.suppress(av.error.FFmpegError):
            self._container.seek(pts, stream=self._stream, backward=True, any_frame=False)
            packets = self._demux()
            for packet in packets:
                order = self._index.order_of_pts.get(packet.pts if packet.pts is not None else packet.dts)
                if order is None or order > first:
                    break
                if order == first:
                    yield first, packet
                    yield from enumerate(packets, first + 1)
                    return
        yield from ((order, packet) for order, packet in enumerate(self._from_start()) if order >= first)

    # ---- pixels ----

    def _rgb(self, frame: Any) -> np.ndarray:
        """(H, W, 3) uint8, upright; a view into the frame's own memory where it is not turned."""
        if frame.is_corrupt:
            self._note(f"the frame at {float((frame.pts or 0) * (frame.time_base or 0)):.2f} s is damaged and partly "
                       "made up by the decoder")
        try:
            return upright_rgb(frame, self._size, self._turned, self._reformatter)
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f"{self.path}: pixels of format {frame.format.name} cannot be turned into RGB ({error}); "
                             "re-encode it") from error

    def _exact(self, indices: Sequence[int]) -> Iterator[Any]:
        """The decoded frame of every index, in order; an error at the first that is missing."""
        self._turn = turn = self._turn + 1
        done = 0
        for index, frame in self._frames(indices):
            if index != indices[done]:
                break
            yield frame
            done += 1
            if turn != self._turn:
                raise RuntimeError(f"{self.path}: another read began before this iteration ended; finish it first, "
                                   "or open the video a second time")
        if done < len(indices):
            raise VideoError(f"{self.path}: frame {indices[done]} (of {len(self._index.entries)}) cannot be decoded, "
                             "the file is damaged there; re-encode it, leave it out, or ask for frames before it")

    def stream(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 for increasing distinct indices.

        Raises:
            VideoError: naming the first frame that cannot be decoded.
        """
        for frame in self._exact(indices):
            yield self._rgb(frame).copy()

    def decode(self, indices: Sequence[int]) -> np.ndarray:
        """Return (n, H, W, 3) uint8 for increasing distinct indices; raises as `stream` does."""
        out = np.empty((len(indices), self.height, self.width, 3), np.uint8)
        for place, frame in enumerate(self._exact(indices)):
            out[place] = self._rgb(frame)
        return out


def _keeping(kept: list[Any], items: Iterable[Any], room: int, size_of: Callable[[Any], int]) -> Iterator[Any]:
    """Pass items on, and keep all of them in a list if they fit into `room` bytes; else the list ends up empty."""
    for item in items:
        room -= size_of(item)
        if room >= 0:
            kept.append(item)
        else:
            kept.clear()
        yield item
