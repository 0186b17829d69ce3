"""The finished results of a command over many videos, kept until it has finished, so that the same
command goes on after an interruption."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from marey import __version__
from marey.features.cache import cache_key
from marey.files import atomic, file_identity

FOLDER = "marey/results"
"""Below the user's cache."""


class KeptResults:
    """One JSON file per video, in a folder of its own for everything that was asked alike.

    Args:
        model: the name or folder that was asked; a folder is known by its files as they are.
        videos: how many are asked about; of one video nothing is kept.
        asked: everything else that the results depend on, JSON values.
    """

    def __init__(self, model: str, videos: int, **asked: Any) -> None:
        self.active = videos > 1
        folder = Path(model)
        files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        weights = [file_identity(file) for file in files]
        key = cache_key(model=model, weights=weights, version=__version__, asked=asked)
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = user_cache / FOLDER / key

    def get(self, video: str | Path, **more: Any) -> dict[str, Any] | None:
        """Return the result of a video, None where there is none, or the video has changed."""
        path = self._path(video, more)
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path is not None else None
        except (OSError, ValueError):
            return None

    def put(self, video: str | Path, result: dict[str, Any], **more: Any) -> None:
        """Keep the result of a video, in JSON types.

        Args:
            more: what else this one depends on, the same as in `get`.
        """
        path = self._path(video, more)
        if path is not None:
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(result), encoding="utf-8")

    def remove(self) -> None:
        """Remove all results; the command has finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, video: str | Path, more: dict[str, Any]) -> Path | None:
        if not self.active or not Path(video).exists():
            return None
        return self.folder / f"{cache_key(video=file_identity(video), more=more)}.json"
