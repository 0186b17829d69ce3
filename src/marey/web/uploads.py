"""Temporary files of uploads: under a name of our own, limited in size, deleted after the
answer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1 << 20


class TooLargeError(Exception):
    """The upload is larger than the limit."""


class Upload(Protocol):
    """What FastAPI gives for a file of a multipart form."""

    filename: str | None

    async def read(self, size: int = -1, /) -> bytes: ...


@contextlib.asynccontextmanager
async def stored(upload: Upload, max_bytes: int) -> AsyncIterator[Path]:
    """Keep an upload in a folder of its own for as long as the block lasts.

    The visitor's file name is never used as a path; only a plain suffix of it is kept, for readers
    that use it.

    Raises:
        TooLargeError: as soon as more than `max_bytes` have come.
    """
    with tempfile.TemporaryDirectory(prefix="marey-upload-") as folder:
        path = Path(folder) / f"video{plain_suffix(upload.filename or '')}"
        size = 0
        with path.open("wb") as stream:
            while chunk := await upload.read(CHUNK_BYTES):
                size += len(chunk)
                if size > max_bytes:
                    raise TooLargeError
                stream.write(chunk)
        yield path


def plain_suffix(name: str) -> str:
    """Return the suffix of a file name if it is short and alphanumeric, else nothing.

    >>> plain_suffix("a.MP4"), plain_suffix("../x.<b>"), plain_suffix("noname")
    ('.mp4', '', '')
    """
    suffix = Path(name).suffix.lower()
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 6 else ""
