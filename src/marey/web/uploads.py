"""Uploads on their way to a worker: under names of our own, in the job's folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

UPLOAD = "upload"
"""Name of a visitor's file or folder in the folder of its job."""
COPY_BYTES = 1 << 20


def store_upload(upload: Any, folder: Path) -> Path:
    """Copy an upload, of Starlette's form, into a folder and return its path.

    The visitor's file name is never used as a path; only a plain suffix of it is kept, for readers
    that use it.
    """
    path = folder / f"{UPLOAD}{plain_suffix(upload.filename or '')}"
    with path.open("wb") as stream:
        shutil.copyfileobj(upload.file, stream, COPY_BYTES)
    return path


def plain_suffix(name: str) -> str:
    """Return the suffix of a file name if it is short and alphanumeric, else nothing.

    >>> plain_suffix("a.MP4"), plain_suffix("../x.<b>"), plain_suffix("noname")
    ('.mp4', '', '')
    """
    suffix = Path(name).suffix.lower()
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 6 else ""


def shown_name(name: str | None) -> str:
    """Return a visitor's file name as it may be shown: one line, no folders, not endless.

    >>> shown_name("C:\\\\videos\\\\a\\x1b[2Jb.mp4"), shown_name("")
    ('a[2Jb.mp4', 'video')
    """
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:200] or "video"
