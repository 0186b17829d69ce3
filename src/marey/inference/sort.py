"""Copies of videos in folders named by their answers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from marey.files import atomic

UNKNOWN, STILL = "unknown", "still"
"""Folders of videos whose action is unknown, and in which nothing moves."""


def place_of(entry: dict[str, Any]) -> str:
    """Return the folder's name for an answered video.

    Args:
        entry: as in the JSON of `marey predict`.
    """
    if entry["trust"].get("still"):
        return STILL
    if entry["trust"].get("unknown") or not entry["predictions"]:
        return UNKNOWN
    return re.sub(r"[^\w .()-]+", "_", entry["predictions"][0]["label"]).strip(" .") or UNKNOWN


def sorted_copy(video: Path, folder: Path) -> Path:
    """Copy a video, or a folder of frames, into a folder; an equal name gets a number.

    Returns:
        Where the copy lies; a copy of the same size that is there already is kept.

    Raises:
        UserError: if it cannot be written.
    """
    number = 1
    while True:
        name = video.name if number == 1 else f"{video.stem}-{number}{video.suffix}"
        target = folder / name
        if not target.exists():
            break
        if video.is_dir() or target.stat().st_size == video.stat().st_size:
            return target
        number += 1
    if video.is_dir():
        shutil.copytree(video, target)
        return target
    with atomic(target) as temporary:
        shutil.copyfile(video, temporary)
    return target
