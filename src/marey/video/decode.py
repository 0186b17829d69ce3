"""Exact frame access: any frame of any video by its number in presentation order, decoding only
what is needed.

Colour: the matrix and range named in the file are honoured; where it names none, BT.601 limited
range, as FFmpeg itself, decord and torchcodec do, so frames equal those that public checkpoints
were trained on. Non-square pixels are left as stored.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from marey.errors import UserError, VideoError
from marey.video.clip import Clip
from marey.video.frame_folder import FrameFolder
from marey.video.stream import VideoFile

MAX_PIXELS = 8192 * 4320
"""Default limit on width times height: 8K."""
MAX_SECONDS = 4 * 3600.0
"""Default limit on duration, in seconds."""
CLIP_BYTES = 160_000_000
"""Frames of one clip that are kept at the file's own size: 25 of 1920 x 1080."""
REDUCED_BYTES = 64_000_000
"""Size to which the frames of a larger clip are reduced together, while they are decoded."""
CHUNK_BYTES = 64_000_000
"""Frames of one part of a video that is read from beginning to end."""


def open_video(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float = MAX_SECONDS,
    threads: int | None = None,
    folder_fps: float = 30.0,
) -> VideoReader:
    """Open a video file, or a folder of frames, for exact access.

    Args:
        path: any container and codec FFmpeg reads locally, or a folder of JPEG/PNG/... frames in
            the order of the numbers in their names.
        max_pixels: largest width times height, in pixels.
        max_seconds: longest duration, in seconds.
        threads: decoding threads; None takes up to 4, and 1 inside a DataLoader worker.
        folder_fps: frame rate of a folder of frames, which does not say it
            (Kinetics, AVA and SSv2 extractions: 30).

    Raises:
        VideoError: one line that starts with the path, if it is missing, empty, not a video, too
            large or too long.
    """
    return VideoReader(
        path, max_pixels=max_pixels, max_seconds=max_seconds, threads=threads, folder_fps=folder_fps
    )


class VideoReader:
    """A video open for exact access; a context manager. Frames are numbered in presentation order
    from 0."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_pixels: int = MAX_PIXELS,
        max_seconds: float = MAX_SECONDS,
        threads: int | None = None,
        folder_fps: float = 30.0,
    ) -> None:
        self.path = os.fspath(path)
        self._source: FrameFolder | VideoFile
        try:
            self._source = self._open(max_pixels, max_seconds, threads, folder_fps)
        except OSError as error:
            raise VideoError(
                f"{self.path}: cannot be opened ({error.strerror or error}); check that you may "
                "read it"
            ) from error
        self.frame_seconds: tuple[float, ...] = self._source.frame_seconds
        """Time each frame is first shown, in seconds from the first one."""
        self.duration_seconds: float = self._source.duration_seconds
        """Time from the first frame's start to the last one's end, in seconds."""
        self.fps: float = self._source.fps
        """Average frame rate, in frames per second."""
        self.width: int = self._source.width
        """Pixels, after rotation metadata."""
        self.height: int = self._source.height
        """Pixels, after rotation metadata."""
        if self.duration_seconds > max_seconds:
            self.close()
            raise VideoError(
                f"{self.path}: lasts {self.duration_seconds:.0f} s, the limit is {max_seconds:.0f} "
                "s; cut it or raise max_seconds"
            )

    def _open(
        self, max_pixels: int, max_seconds: float, threads: int | None, folder_fps: float
    ) -> FrameFolder | VideoFile:
        where = Path(self.path)
        if not where.exists():
            raise VideoError(f"{self.path}: there is no such file or folder; check the path")
        if where.is_dir():
            return FrameFolder(self.path, fps=folder_fps, max_pixels=max_pixels)
        if where.is_file():
            return VideoFile(
                self.path, threads=_threads(threads), max_pixels=max_pixels, max_seconds=max_seconds
            )
        raise VideoError(
            f"{self.path}: is neither a file nor a folder; give a video file or a folder of frames"
        )

    @property
    def damaged(self) -> str | None:
        """None, or what is wrong with the file, as far as it has been read: its readable frames are
        served, and no other in their place."""
        return self._source.damaged

    @property
    def num_frames(self) -> int:
        """Number of frames shown."""
        return len(self.frame_seconds)

    def __len__(self) -> int:
        return self.num_frames

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def end_seconds(self, index: int) -> float:
        """Time frame `index` stops being shown, in seconds."""
        return (
            self.frame_seconds[index + 1] if index + 1 < self.num_frames else self.duration_seconds
        )

    def frame_range(
        self, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> tuple[int, int]:
        """Frames [first, stop) shown during [start_seconds, end_seconds); at least one frame.

        Raises:
            VideoError: if the range is empty or begins after the end of the video.
        """
        start = 0.0 if start_seconds is None else start_seconds
        end = math.inf if end_seconds is None else end_seconds
        if end <= start or start >= self.duration_seconds + 1e-9:
            raise VideoError(
                f"{self.path}: the part from {start:g} s to {end:g} s is empty or outside its "
                f"{self.duration_seconds:.3f} s; correct the start and end times"
            )
        first = max(0, bisect_right(self.frame_seconds, start + 1e-6) - 1)
        stop = bisect_right(self.frame_seconds, end - 1e-6)
        return first, max(first + 1, stop)

    def indices_at_seconds(self, seconds: Sequence[float]) -> list[int]:
        """Index of the frame shown at each time: the last one that started at or before it
        (within a microsecond)."""
        return [
            min(max(bisect_right(self.frame_seconds, t + 1e-6) - 1, 0), self.num_frames - 1)
            for t in seconds
        ]

    def frames_at(self, indices: Sequence[int], *, held: int | None = None) -> Clip:
        """Decode exactly these frames, in the order given; repeats are allowed.

        Args:
            indices: from 0.
            held: number of frames of this video that the caller holds at a time. Where so many
                take more than `CLIP_BYTES`, each is reduced as it is decoded, to a size at which
                they take `REDUCED_BYTES`. None keeps the file's size.

        Raises:
            VideoError: if an index is outside [0, num_frames), or the file is damaged there.
        """
        indices = [int(index) for index in indices]
        for index in indices:
            if not 0 <= index < self.num_frames:
                raise VideoError(
                    f"{self.path}: has frames 0 to {self.num_frames - 1}, frame {index} was asked "
                    "for; ask for frames inside that range"
                )
        if not indices:
            raise UserError(f"{self.path}: no frame was asked for; give at least one index")
        distinct = sorted(set(indices))
        # (n, H, W, 3), in the order of `distinct`
        frames = self._source.decode(distinct, self._size_within(held))
        if distinct != indices:
            position = {index: k for k, index in enumerate(distinct)}
            frames = frames[[position[index] for index in indices]]
        return self._clip(frames, indices)

    def _size_within(self, held: int | None) -> tuple[int, int] | None:
        """(height, width) at which `held` frames take `REDUCED_BYTES`; None where they take no more
        than `CLIP_BYTES` as they are."""
        total = (held or 0) * self.height * self.width * 3
        if total <= CLIP_BYTES:
            return None
        scale = math.sqrt(REDUCED_BYTES / total)
        return max(1, int(self.height * scale)), max(1, int(self.width * scale))

    def frames_at_seconds(self, seconds: Sequence[float]) -> Clip:
        """Decode the frames shown at these times, in seconds from the first frame."""
        return self.frames_at(self.indices_at_seconds(seconds))

    def iterate(
        self, start: int = 0, stop: int | None = None, step: int = 1, chunk: int = 64
    ) -> Iterator[Clip]:
        """Stream frames start, start + step, ... below stop, in clips of up to `chunk` frames and
        about `CHUNK_BYTES`, decoding each frame once."""
        stop = self.num_frames if stop is None else min(stop, self.num_frames)
        if start < 0 or step < 1 or chunk < 1:
            raise UserError(
                f"{self.path}: start counts from 0, step and chunk from 1, got {start}, {step} "
                f"and {chunk}"
            )
        wanted = range(start, stop, step)
        chunk = self.chunk_frames(chunk)
        pending: list[np.ndarray] = []
        done = 0
        for frame in self._source.stream(wanted):
            pending.append(frame)
            if len(pending) == chunk:
                frames = frame[None] if chunk == 1 else np.stack(pending)
                pending = []
                yield self._clip(frames, wanted[done : done + chunk])
                done += chunk
        if pending:
            yield self._clip(np.stack(pending), wanted[done : done + len(pending)])

    def stream(self, indices: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield index and frame, uint8 (3, H, W), of these rising distinct indices; the pixels of
        no other frame are made.

        Raises:
            VideoError: naming the first frame that cannot be decoded.
        """
        for index, frame in zip(indices, self._source.stream(indices), strict=True):
            yield index, torch.from_numpy(frame).permute(2, 0, 1)

    def chunk_frames(self, most: int) -> int:
        """Return how many frames to hold at a time: at least 1, at most `most`, about
        `CHUNK_BYTES`."""
        return max(1, min(most, CHUNK_BYTES // (self.height * self.width * 3)))

    def _clip(self, frames: np.ndarray, indices: Sequence[int]) -> Clip:
        return Clip(
            frames=torch.from_numpy(frames).permute(0, 3, 1, 2),
            frame_indices=tuple(indices),
            frame_seconds=tuple(self.frame_seconds[i] for i in indices),
            fps=self.fps,
            path=self.path,
        )


def _threads(threads: int | None) -> int:
    if threads is not None:
        return max(1, threads)
    if torch.utils.data.get_worker_info() is not None:
        return 1
    return min(
        4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
