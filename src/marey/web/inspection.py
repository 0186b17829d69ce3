"""Checks of a video against the server's limits, in the worker process, before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from marey.errors import PixelLimitError, UserError
from marey.video.decode import open_video
from marey.web.limits import Limits


class BeyondLimitsError(UserError):
    """The video is longer, or its frames larger or more, than the server takes."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a video is."""

    seconds: float
    fps: float
    width: int
    height: int
    """Pixels, as shown."""
    num_frames: int
    damaged: str | None
    """What is wrong with the file; None where nothing is."""


def inspect_video(path: str | Path, limits: Limits) -> Facts:
    """Return what a video is.

    Raises:
        BeyondLimitsError: if it is longer, or its frames larger or more, than the limits.
        VideoError: if it cannot be read.
    """
    count_packets(path, limits.max_frames)
    try:
        with open_video(path, max_pixels=limits.max_pixels) as reader:
            facts = Facts(
                seconds=reader.duration_seconds,
                fps=reader.fps,
                width=reader.width,
                height=reader.height,
                num_frames=reader.num_frames,
                damaged=reader.damaged,
            )
    except PixelLimitError:
        raise BeyondLimitsError(
            f"has frames of more than {limits.max_pixels} pixels, the most this server takes; "
            "shrink the video"
        ) from None
    if facts.num_frames > limits.max_frames:
        raise too_many_frames(limits.max_frames)
    if facts.seconds > limits.max_seconds:
        raise BeyondLimitsError(
            f"lasts {facts.seconds:.0f} s, this server takes up to {limits.max_seconds:g} s; "
            "cut the video"
        )
    return facts


def count_packets(path: str | Path, max_frames: int) -> None:
    """Refuse a file with too many pictures before anything of it is kept in memory.

    Files that cannot be opened pass: `open_video` names what is wrong with them.

    Raises:
        BeyondLimitsError: as soon as more than `max_frames` packets of video have been seen.
    """
    try:
        with av.open(f"file:{path}") as container:
            if not container.streams.video:
                return
            packets = container.demux(container.streams.video[0])
            for number, _ in enumerate(packets):
                if number > max_frames:
                    raise too_many_frames(max_frames)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, BeyondLimitsError):
            raise


def too_many_frames(max_frames: int) -> BeyondLimitsError:
    """Return the error for a video with too many frames."""
    return BeyondLimitsError(
        f"has more than {max_frames} frames, the most this server takes; cut the video or lower "
        "its frame rate"
    )
