"""The feature cache: what a network made of a video, stored under a key, so that it is computed
once.

cache = FeatureCache()
key = cache_key(weights=weights_digest(encoder.state_dict()), preprocess=repr(preprocess),
                video=file_identity(path))
features = cache.get_or_make(key, lambda: {"embedding": encode(path)})["embedding"]
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from marey.files import atomic

CODE_VERSION = 1
"""Part of every key; raise it where the same inputs give other features than before."""


class FeatureCache:
    """Arrays by key, one file per key.

    A file is written whole or not at all, and never changed: several processes may read and write
    one cache, and two that make the same key write the same bytes. Arrays are memory-mapped: only
    what is used of them is read.

    Args:
        folder: where the files lie; None: `marey/features` in XDG_CACHE_HOME, by default ~/.cache.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = user_cache / "marey" / "features" if folder is None else Path(folder)

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the arrays of a key on the CPU, or None where they are not stored or their file is
        damaged."""
        try:
            return load_file(self.path(key))
        except (FileNotFoundError, SafetensorError):
            return None

    def put(self, key: str, arrays: Mapping[str, Tensor]) -> None:
        """Store arrays under a key.

        Raises:
            UserError: if the disk is full.
        """
        contiguous = {
            name: array.detach().cpu().contiguous().clone() for name, array in arrays.items()
        }
        with atomic(self.path(key)) as temporary:
            save_file(contiguous, temporary)

    def get_or_make(self, key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the arrays of a key, made and stored now where they are missing."""
        stored = self.get(key)
        if stored is None:
            self.put(key, make())
            stored = self.get(key)
        assert stored is not None
        return stored


def cache_key(**depends_on: Any) -> str:
    """Return the key of features: the SHA-256 of everything they depend on.

    Args:
        depends_on: JSON values, such as the digest of the weights, how clips are prepared and
            augmented, and `files.file_identity` of the video.
    """
    text = json.dumps({**depends_on, "code_version": CODE_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
