"""Limits on uploads and videos."""

from __future__ import annotations

from dataclasses import dataclass

from marey.errors import PixelLimitError, UserError
from marey.video.decode import open_video


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server; what is beyond them is refused."""

    max_megabytes: float = 200.0
    """Largest upload, in 10^6 bytes."""
    max_seconds: float = 600.0
    """Longest video, in seconds."""
    max_pixels: int = 4096 * 2304
    """Largest frame, width times height, in pixels: 4K."""
    concurrent: int = 2
    """API requests answered at once; one more gets status 503."""

    @property
    def max_bytes(self) -> int:
        """Largest upload, in bytes."""
        return int(self.max_megabytes * 1e6)


class BeyondLimitsError(UserError):
    """The video is longer, or its frames larger, than the server takes."""


def check_limits(path: str, limits: Limits) -> float:
    """Return the duration of a video in seconds.

    Raises:
        BeyondLimitsError: if it is longer, or its frames larger, than the limits.
        VideoError: if it cannot be read.
    """
    try:
        with open_video(path, max_pixels=limits.max_pixels) as reader:
            duration = reader.duration_seconds
    except PixelLimitError:
        raise BeyondLimitsError(
            f"has frames of more than {limits.max_pixels} pixels, the most this server takes; "
            "shrink the video"
        ) from None
    if duration > limits.max_seconds:
        raise BeyondLimitsError(
            f"lasts {duration:.0f} s, this server takes up to {limits.max_seconds:g} s; "
            "cut the video"
        )
    return duration
