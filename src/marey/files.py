"""Writing files whole or not at all (under a temporary name, then renamed), JSON, CSV, and digests
of weights."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from marey.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)
"""Errors of a place that cannot be written to."""


@contextmanager
def atomic_files(*paths: str | Path) -> Iterator[tuple[Path, ...]]:
    """Give a temporary path for each file; at the end of the block they are renamed in the order
    given.

    Every temporary file is complete and flushed to disk before the first one is renamed.

    Args:
        paths: the final names; missing folders are made. A temporary name keeps the suffix, which
            some writers need.

    Raises:
        UserError: if the disk is full; nothing under the final names has changed then.
    """
    finals = [Path(path) for path in paths]
    staged: list[Path] = []
    try:
        for final in finals:
            final.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                prefix=f".{final.stem[:80]}.", suffix=f".partial{final.suffix}", dir=final.parent
            )
            os.close(handle)
            staged.append(Path(name))

        yield tuple(staged)

        for temporary in staged:
            temporary.chmod(0o644)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        for temporary, final in zip(staged, finals, strict=True):
            os.replace(temporary, final)
    except Exception as error:
        if _disk_is_full(error):
            raise UserError(
                f"{finals[0].parent}: the disk is full, nothing was saved there and an older file "
                "of that name is untouched; free some space or choose another folder"
            ) from error
        if isinstance(error, OSError) and error.errno in FORBIDDEN and _is_about(error, finals):
            raise UserError(
                f"{finals[0]}: cannot be written ({error.strerror}); choose another place, or make "
                "its folder writable"
            ) from error
        raise
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path for one file, which is renamed to `path` at the end of the block
    (`atomic_files`)."""
    with atomic_files(path) as (temporary,):
        yield temporary


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Give an empty temporary folder, which takes the place of `folder` at the end of the block."""
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(
            tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent)
        )
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); choose another place, or make its "
            "folder writable"
        ) from error
    try:
        yield temporary

        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


LOCK = ".lock"
"""File that a writing process holds in its folder."""


class FolderLock:
    """Keeps a second process from writing into a folder; the system releases it when the process
    ends, however it ends.

    Args:
        folder: made if absent.

    Raises:
        UserError: if another process holds it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / LOCK
        with atomic_place(self.path):
            self.file = open(self.path, "a+")  # noqa: SIM115  (closed by close())
        if fcntl is None:
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            raise UserError(
                f"{folder}: another process is writing there; wait for it, or choose another --out"
            ) from error

    def close(self) -> None:
        """Release the folder."""
        if not self.file.closed:
            self.path.unlink(missing_ok=True)
            self.file.close()


@contextmanager
def atomic_place(path: Path) -> Iterator[None]:
    """Make the folder of a file that is written in place, and name the file where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written to ({error.strerror}); choose another place, or "
            "make it writable"
        ) from error


def sweep_partial(folder: str | Path, *, older_seconds: float = 3600.0) -> int:
    """Remove what a killed writer left in a folder: files and folders named ".*.partial*".

    Args:
        older_seconds: younger ones stay, another process may be writing them.

    Returns:
        How many were removed.
    """
    removed = 0
    limit = time.time() - older_seconds
    for path in Path(folder).glob(".*.partial*"):
        try:
            if path.stat().st_mtime > limit:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed += 1
        except OSError:
            continue
    return removed


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write some bytes as a file."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8."""
    write_bytes(path, text.encode(errors="surrogateescape"))  # names of files may be no UTF-8


def write_json(path: str | Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON value and a line break."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def finite(value: Any) -> Any:
    """Return JSON values with NaN and infinity, which JSON does not have, as None; keys become
    text."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


DAMAGE = (
    ValueError,  # also UnicodeDecodeError, JSONDecodeError
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    csv.Error,
    StopIteration,
    EOFError,
    SyntaxError,
    tokenize.TokenError,  # both of numpy's header
)
"""What code that expects a whole file raises at a damaged one."""


@contextmanager
def untrusted(path: str | Path, what: str) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into one line that names the file.

    Args:
        path: the file that is read in the block; a text names something that is no file.
        what: what it should hold, for example "a checkpoint's config.json".

    Raises:
        UserError: for every error of `DAMAGE`. A UserError passes, with the path before it where it
            lacks it.
    """
    try:
        yield
    except UserError as error:
        if isinstance(path, Path) and str(path) not in str(error):
            raise type(error)(f"{path}: {error}") from error
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:160]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(
            f"{path}: cannot be read as {what} ({kind}{reason}); the file is damaged or of another "
            "kind, copy or write it again"
        ) from error


def read_json(path: str | Path, *, remedy: str = "check the name") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        remedy: what the error advises where the file is absent.

    Raises:
        UserError: if the file is absent or not a JSON object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not valid JSON ({error}); the file is damaged, copy it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def write_csv(path: str | Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as CSV (UTF-8, comma, one line break per row); None becomes an empty cell."""
    with atomic(path) as temporary, _csv_file(temporary) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_figure(path: str | Path, figure: Figure, dpi: int) -> None:
    """Write a figure of matplotlib; the suffix says the format: .png, .svg, .pdf."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _csv_file(path: Path) -> TextIO:
    # Names of files may be no UTF-8; their bytes are written as they are.
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Return a short name for some weights: the first 12 hexadecimal digits of the SHA-256 over
    names and values.

    Args:
        state: name -> tensor, as of `state_dict()`; the order does not matter.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(name.encode() + values.view(values[:0].byte().dtype).numpy().tobytes())
    return digest.hexdigest()[:12]


def file_identity(path: str | Path) -> list[Any]:
    """Return what changes when a file does: absolute path, size in bytes, time of the last change
    in nanoseconds.

    For a folder of frames: the number of its files and the latest of their times.
    """
    path = Path(path).absolute()
    if path.is_dir():
        files = [entry.stat() for entry in os.scandir(path)]
        return [str(path), len(files), max((file.st_mtime_ns for file in files), default=0)]
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def _is_about(error: OSError, finals: list[Path]) -> bool:
    """Whether an error names one of some files, its temporary, or a folder above it."""
    if error.filename is None:
        return True
    name = Path(os.fsdecode(error.filename))
    return any(name.parent == final.parent or name in final.parents for final in finals)


def _disk_is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    message = str(error).lower()  # safetensors and torch report the system's error as text
    return any(
        sign in message
        for sign in ("no space left", "os error 28", "os error 122", "quota exceeded")
    )
