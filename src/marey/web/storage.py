"""The folder of a server's temporary files: made at the start, deleted at the end, and after a
server that was killed by the next one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

PREFIX = "marey-serve-"
OWNER = "owner.json"
STARTING_SECONDS = 60.0
"""A folder without an owner may be that of a server that is just starting."""


def make_root() -> Path:
    """Sweep away what dead servers left, and make a folder for this one."""
    sweep(Path(tempfile.gettempdir()))
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    (root / OWNER).write_text(json.dumps(owner_of(os.getpid())))
    return root


def sweep(parent: Path) -> list[Path]:
    """Delete the folders of servers that no longer run, and return them.

    Only folders of this user and this machine are touched; links are not followed.
    """
    gone = []
    for folder in parent.glob(f"{PREFIX}*"):
        if folder.is_symlink() or not folder.is_dir() or not is_ours(folder):
            continue
        if not is_running(folder):
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
    return gone


def is_ours(folder: Path) -> bool:
    """Return whether this user owns a folder; always so where systems have no owners."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def is_running(folder: Path) -> bool:
    """Return whether the server that made a folder still runs, or may do so elsewhere."""
    try:
        owner = json.loads((folder / OWNER).read_text())
        if owner["host"] != socket.gethostname():
            return True
        return owner == owner_of(int(owner["pid"]))
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime < STARTING_SECONDS
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def owner_of(pid: int) -> dict[str, Any]:
    """Return what tells one process from every other, also from one that gets its number later."""
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": round(psutil.Process(pid).create_time(), 2),
    }


def new_folder(root: Path) -> Path:
    """Make an empty folder below the server's."""
    return Path(tempfile.mkdtemp(prefix="job-", dir=root))
