"""Limits of the server: on requests, videos, work and storage."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server; what is beyond them is refused or stopped."""

    max_megabytes: float = 200.0
    """Largest upload, in 10^6 bytes."""
    max_seconds: float = 600.0
    """Longest video, in seconds."""
    max_pixels: int = 4096 * 2304
    """Largest frame, width times height, in pixels: 4K."""
    max_frames: int = 40_000
    """Most frames in a video."""
    concurrent: int = 2
    """Requests worked on at once, each in a process of its own."""
    max_waiting: int = 32
    """Requests that wait for a process; one more gets status 503."""
    max_uploads: int = 32
    """Uploads received at once; one more gets status 503."""
    job_seconds: float = 120.0
    """Longest work on one request; then its process is ended."""
    memory_megabytes: float = 4000.0
    """Most memory of a process, in 10^6 bytes; beyond it the process is ended."""
    idle_seconds: float = 20.0
    """Longest time without a byte from a visitor who sends, or to one who reads."""
    head_seconds: float = 10.0
    """Longest time until the headers of a request are complete."""
    min_bytes_per_second: float = 2000.0
    """Slowest upload, on average after `idle_seconds`."""
    keep_seconds: float = 600.0
    """How long the pictures of an answer are kept for a page that does not say that it is left."""
    absent_seconds: float = 30.0
    """A page that has not asked for so long has been left: its work stops."""
    max_batch: int = 16
    """Videos in one request."""
    teach_megabytes: float = 1000.0
    """Largest upload of videos to learn from, in 10^6 bytes."""
    teach_files: int = 1000
    """Most files to learn from."""
    teach_seconds: float = 1800.0
    """Longest work on teaching."""

    @property
    def max_bytes(self) -> int:
        """Largest upload, in bytes."""
        return int(self.max_megabytes * 1e6)

    @property
    def teach_bytes(self) -> int:
        """Largest upload of videos to learn from, in bytes."""
        return int(self.teach_megabytes * 1e6)

    def to_dict(self) -> dict[str, Any]:
        """Return the limits as JSON types, as a worker process takes them."""
        return asdict(self)
