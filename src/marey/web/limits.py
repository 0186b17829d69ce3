"""How much the server takes before it says no."""

from __future__ import annotations

from dataclasses import dataclass

from marey.errors import UserError
from marey.video.decode import open_video


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server takes before it says no."""

    max_megabytes: float = 200.0
    """Largest upload, in 10^6 bytes."""
    max_seconds: float = 600.0
    """Longest video, in seconds."""
    concurrent: int = 2
    """API requests answered at once; one more is told to come back."""

    @property
    def max_bytes(self) -> int:
        """Largest upload, in bytes."""
        return int(self.max_megabytes * 1e6)


class TooLongError(UserError):
    """The video lasts longer than the server takes."""


def check_length(path: str, limits: Limits) -> float:
    """Return the duration of a video in seconds.

    Raises:
        TooLongError: if it is longer than the limit.
        VideoError: if it cannot be read.
    """
    with open_video(path) as reader:
        duration = reader.duration_seconds
    if duration > limits.max_seconds:
        raise TooLongError(f"lasts {duration:.0f} s, this server takes up to {limits.max_seconds:g} s; cut the video")
    return duration
