"""Write a file so that a crash or a full disk leaves the one before it untouched."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marey.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


def write_files(folder: str | Path, writers: dict[str, Callable[[Path], None]]) -> None:
    """Write several files of one folder: all under temporary names first, then renamed in the order given.

    Args:
        folder: made if absent.
        writers: file name -> function that writes it to the path it is given.

    Raises:
        UserError: if the disk is full; nothing under the final names has changed then.
    """
    folder = Path(folder)
    staged: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".partial", dir=folder)
            os.close(handle)
            staged.append((Path(temporary), folder / name))
            write(Path(temporary))
            Path(temporary).chmod(0o644)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        for temporary_path, final in staged:
            os.replace(temporary_path, final)
    except Exception as error:
        for temporary_path, _ in staged:
            temporary_path.unlink(missing_ok=True)
        if _disk_is_full(error):
            raise UserError(f"{folder}: the disk is full, nothing was saved there and an older file of that name is "
                            "untouched; free some space or choose another folder") from error
        raise


def write_file(path: str | Path, write: Callable[[Path], None]) -> None:
    """Write one file by `write_files`."""
    path = Path(path)
    write_files(path.parent, {path.name: write})


def _disk_is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    message = str(error).lower()                       # safetensors and torch report the system's error as text
    return any(sign in message for sign in ("no space left", "os error 28", "os error 122", "quota exceeded"))



def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file under a temporary name and rename it."""
    temporary = path.with_suffix(".json.partial")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
