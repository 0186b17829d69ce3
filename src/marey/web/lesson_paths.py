"""Where the files of an uploaded folder go: below a folder of ours, whatever their names say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from marey.errors import UserError

COPY_BYTES = 1 << 20
MAX_NAME = 120
"""Longest part of a path, in characters."""


def place_videos(uploads: Sequence[Any], root: Path) -> str:
    """Copy the files of a form, named by their paths in the visitor's folder, below `root`.

    Returns:
        What the visitor calls them: the name of the folder or of the zip.

    Raises:
        UserError: if a name leads out of the folder, or is given twice.
    """
    name = "the upload"
    for upload in uploads:
        relative = safe_path(upload.filename or "")
        name = relative.parts[0]
        path = root / relative
        if any(part.startswith(".") for part in relative.parts):
            continue  # files that systems and editors hide
        if path.exists():
            raise UserError(f"'{relative}' is given twice; give every file a name of its own")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while chunk := upload.file.read(COPY_BYTES):
                file.write(chunk)
    return name


def safe_path(name: str) -> Path:
    """Return a visitor's relative path as one below a folder of ours.

    Raises:
        UserError: if it leads out of it.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."]
    if not parts or any(
        part in ("..", "/") or ":" in part or not part.isprintable() for part in parts
    ):
        shown = "".join(letter for letter in name[:80] if letter.isprintable())
        raise UserError(f"'{shown}' is no path inside an uploaded folder")
    return Path(*[part[:MAX_NAME] for part in parts])
