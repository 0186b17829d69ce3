"""The frames of one video file: indexed, and decoded where they are asked for.

Wanted frames are reached from the key frame before them; in H.264 and HEVC the decoder drops,
undecoded, frames that nobody asked for and no other frame refers to. Whatever does not come out
that way is looked for once more by decoding everything from the start; what is still missing is an
error that names the frame.

A decoded picture of 8K takes 50 to 140 MB, so nobody keeps one while the next is decoded: loops
`del` their frame, and count by themselves, for `enumerate` keeps the last item.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from marey.errors import PixelLimitError, VideoError
from marey.video.frame_index import FrameIndex, frame_times, index_frames
from marey.video.packet_source import PacketSource, keeping
from marey.video.rgb import quarter_turns, upright_rgb

CACHE_BYTES = 32 << 20
"""Compressed packets are kept in memory up to this size, so that a short clip is read from disk
once; frames decoded to build an index up to twice that, so that it is decoded once."""


class VideoFile:
    """The video stream of one file; `frame_seconds`, `fps`, sizes and `damaged` are set on
    construction."""

    def __init__(
        self,
        path: str,
        *,
        threads: int,
        max_pixels: int,
        max_seconds: float,
        cache_bytes: int = CACHE_BYTES,
        drop_nonref: bool = True,
    ) -> None:
        self.path, self.max_pixels, self.max_seconds = path, max_pixels, max_seconds
        if os.path.getsize(path) == 0:
            raise VideoError(f"{path}: is empty (0 bytes); copy or download it again")
        self._decoded: list[Any] | None = None  # every frame, where that was needed and is small
        self._reformatter = VideoReformatter()
        self._turn = 0
        self._refused = False  # the decoder met a picture beyond max_pixels
        self._source = PacketSource(
            path, threads=threads, max_pixels=max_pixels, drop_nonref=drop_nonref
        )
        try:
            self._check_limits()
            index = self._source.index(cache_bytes)
            self.by_packets = index is not None
            self._index = self._index_frames(2 * cache_bytes) if index is None else index
            if not self._index.entries:
                self._check_refused()
                why = f" ({self.damaged})" if self.damaged else ""
                raise VideoError(
                    f"{path}: holds no frame that can be decoded{why}; re-encode it or leave it out"
                )
            self._set_times()
            self._look_at_first_frame()
        except av.error.FFmpegError as error:
            self.close()
            raise self._source.unreadable(error) from error
        except BaseException:
            self.close()
            raise

    @property
    def damaged(self) -> str | None:
        """Return what is wrong with the file, as far as it has been read; None where nothing is."""
        return self._source.damaged

    def close(self) -> None:
        """Release the file."""
        self._decoded = None
        self._source.close()

    # ---- limits ----

    def _check_limits(self) -> None:
        context, stream = self._source.context, self._source.stream
        self._check_size(context.width, context.height)
        if stream.duration and stream.time_base:
            self._check_seconds(float(stream.duration * stream.time_base))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise PixelLimitError(
                f"{self.path}: is {width} x {height}, the limit is {self.max_pixels} pixels in "
                "all; shrink it or raise max_pixels"
            )

    def _check_refused(self) -> None:
        if self._refused:
            raise PixelLimitError(
                f"{self.path}: its frames go beyond {self.max_pixels} pixels, the limit; shrink it "
                "or raise max_pixels"
            )

    def _check_seconds(self, seconds: float) -> None:
        if seconds > self.max_seconds:
            raise VideoError(
                f"{self.path}: lasts {seconds:.0f} s, the limit is {self.max_seconds:.0f} s; cut "
                "it or raise max_seconds"
            )

    # ---- index ----

    def _index_frames(self, cache_bytes: int) -> FrameIndex:
        """Decode the file once and list the frames, which are kept if they fit into
        `cache_bytes`."""
        kept: list[Any] = []
        frames = keeping(
            kept,
            self._checked(self._decode_all()),
            cache_bytes,
            lambda frame: sum(plane.buffer_size for plane in frame.planes),
        )
        index = index_frames(frames, seekable=self._source.is_seekable)
        self._decoded = kept or None
        return index

    def _checked(self, frames: Iterable[Any]) -> Iterator[Any]:
        """Pass decoded frames on as long as they stay within the limits of size and duration."""
        base, first, order = self._source.stream.time_base or Fraction(0), None, -1
        for frame in frames:
            order += 1
            self._check_size(frame.width, frame.height)
            first = frame.pts if order == 0 else first
            if frame.pts is not None and first is not None and order % 64 == 0:
                self._check_seconds(float((frame.pts - first) * base))
            yield frame
            del frame

    def _set_times(self) -> None:
        stream = self._source.stream
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.frame_seconds, self.duration_seconds, self.fps = frame_times(
            self._index.entries, stream.time_base, rate
        )

    def _look_at_first_frame(self) -> None:
        first = next((frame for _, frame in self._frames([0])), None)
        if first is None:
            self._check_refused()
            raise VideoError(
                f"{self.path}: its first frame cannot be decoded; the file is damaged: re-encode "
                "it or leave it out"
            )
        self._check_size(first.width, first.height)
        self._size = (first.width, first.height)
        self._turned = quarter_turns(first)
        # PyAV's frame and its side data refer to each other, so the picture would stay for long
        del first
        gc.collect(0)
        self.width, self.height = self._size[::-1] if self._turned[0] else self._size

    # ---- decoding ----

    def _feed(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Frames out of packets, the decoder drained at the end; undecodable packets are noted and
        passed over."""
        source = self._source  # whose decoder is another after a new start
        for packet in packets:
            try:
                yield from source.context.decode(packet)
            except av.error.FFmpegError as error:
                # FFmpeg answers a refused size with EINVAL, and leaves the context without one
                if (
                    error.errno == errno.EINVAL
                    and source.context.width * source.context.height == 0
                ):
                    self._refused = True
                source.note(f"a packet cannot be decoded ({source.reason(error)})")
        with contextlib.suppress(av.error.FFmpegError):
            yield from source.context.decode(None)

    def _decode_all(self) -> Iterator[Any]:
        packets = self._source.from_start()
        self._source.context.skip_frame = "DEFAULT"
        return self._feed(packets)

    def _frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (index, frame) for increasing distinct indices; frames that cannot be decoded are
        left out."""
        if not self.by_packets:
            yield from self._count_frames(indices)
            return
        missing = dict.fromkeys(indices)
        for first, last, group in self._index.runs(indices):
            by_pts = {self._index.entries[i].pts: i for i in group}
            wanted = {self._index.entries[i].order for i in group}
            for frame in self._feed(self._source.between(first, last, wanted, self._index)):
                index = by_pts.pop(frame.pts, None)
                if index is not None:
                    # an earlier one did not come out: start over, thoroughly
                    if next(iter(missing)) != index:
                        break
                    del missing[index]
                    yield index, frame
                del frame
            if by_pts:
                break
        if missing:
            by_pts = {self._index.entries[i].pts: i for i in missing}
            for frame in self._decode_all():
                index = by_pts.pop(frame.pts, None)
                if index is not None:
                    yield index, frame
                del frame
                if not by_pts:
                    return

    def _count_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """As `_frames`, for a decoded index: kept frames, else after a seek by time, else counted
        from the start."""
        if self._decoded is not None:
            yield from ((i, self._decoded[i]) for i in indices)
            return
        done = 0
        if self._index.keys and self._index.keys[0][1] <= indices[0]:
            for index, frame in self._frames_after_seek(indices):
                if index != indices[done]:
                    break
                yield index, frame
                del frame
                done += 1
        if done == len(indices):
            return
        order = -1
        for frame in self._decode_all():
            order += 1
            if order == indices[done]:
                yield order, frame
                done += 1
                if done == len(indices):
                    return
            del frame

    def _frames_after_seek(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Frames of a decoded index, each run from the key frame before it, known by their
        times."""
        for _, _, group in self._index.runs(indices):
            by_pts = {self._index.entries[i].pts: i for i in group}
            pts = self._index.keys[
                bisect_right(self._index.keys, group[0], key=lambda pair: pair[1]) - 1
            ][0]
            packets = self._source.after_seek(pts)
            if packets is None:
                return
            for frame in self._feed(packets):
                # before the key frame, one may lack its references
                usable = frame.pts is not None and frame.pts >= pts
                index = by_pts.pop(frame.pts, None) if usable else None
                if index is not None:
                    yield index, frame
                del frame
                if not by_pts:
                    break
            if by_pts:
                return

    # ---- pixels ----

    def _rgb(self, frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W, 3) uint8, upright; a view into the frame's own memory where it is not turned.

        Args:
            size: (height, width), upright; the pixels are averaged down to it as they are made, so
                that the large picture is never held. None keeps the file's.
        """
        if frame.is_corrupt:
            seconds = float((frame.pts or 0) * (frame.time_base or 0))
            self._source.note(
                f"the frame at {seconds:.2f} s is damaged and partly made up by the decoder"
            )
        try:
            if size is None:
                return upright_rgb(frame, self._size, self._turned, self._reformatter)
            before_turning = size if self._turned[0] else size[::-1]
            return upright_rgb(frame, before_turning, self._turned, self._reformatter, "AREA")
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"{self.path}: pixels of format {frame.format.name} cannot be turned into RGB "
                f"({error}); re-encode it"
            ) from error

    def _exact(self, indices: Sequence[int]) -> Iterator[Any]:
        """The decoded frame of every index, in order; an error at the first that is missing."""
        self._turn = turn = self._turn + 1
        done = 0
        for index, frame in self._frames(indices):
            if index != indices[done]:
                break
            yield frame
            del frame
            done += 1
            if turn != self._turn:
                raise RuntimeError(
                    f"{self.path}: another read began before this iteration ended; finish it "
                    "first, or open the video a second time"
                )
        if done < len(indices):
            raise VideoError(
                f"{self.path}: frame {indices[done]} (of {len(self._index.entries)}) cannot be "
                "decoded, "
                "the file is damaged there; re-encode it, leave it out, or ask for frames before it"
            )

    def stream(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 for increasing distinct indices.

        Args:
            size: (height, width) to reduce each frame to as it is decoded; None keeps the file's.

        Raises:
            VideoError: naming the first frame that cannot be decoded.
        """
        for frame in self._exact(indices):
            pixels = self._rgb(frame, size).copy()
            del frame
            yield pixels

    def decode(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Return (n, H, W, 3) uint8 for increasing distinct indices; as `stream`."""
        out = np.empty((len(indices), *(size or (self.height, self.width)), 3), np.uint8)
        rows = iter(out)
        for frame in self._exact(indices):
            next(rows)[:] = self._rgb(frame, size)
            del frame
        return out
