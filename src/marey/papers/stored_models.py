"""The trained models of a study, each stored under a key of everything it depends on.

The key is a hash of the whole configuration, of the data's files and of the code that trains. A
model of other settings, data or code is therefore never taken for the one asked for.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marey
from marey.errors import UserError
from marey.features.cache import cache_key
from marey.files import file_identity
from marey.training.config import TrainConfig

ROOMS = (
    "checkpoints",
    "datasets",
    "features",
    "labels",
    "layers",
    "losses",
    "metrics",
    "models",
    "order",
    "persons",
    "synthetic",
    "training",
    "transforms",
    "video",
)
"""Packages whose code decides what a training gives."""


@functools.cache
def code_digest() -> str:
    """Return a short hash of the source files of `ROOMS`."""
    root = Path(marey.__file__).parent
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def data_digest(data: str | Path) -> str:
    """Return a short hash of the names, sizes and times of change of a file or a folder's files.

    Raises:
        UserError: if there is no such file or folder.
    """
    data = Path(data)
    if not data.exists():
        raise UserError(f"{data}: no such file or folder; give the data set as --data")
    files = sorted(path for path in data.rglob("*") if path.is_file()) if data.is_dir() else [data]
    return cache_key(files=[file_identity(path) for path in files])[:16]


def model_key(config: TrainConfig) -> str:
    """Return the key of a model: configuration, seed and data's path in it, data and code."""
    digest = None if config.data.path is None else data_digest(config.data.path)
    return cache_key(config=config.to_dict(), data=digest, code=code_digest())[:16]


def trained_model(
    config: TrainConfig, folder: Path, train: Callable[..., Any], **options: Any
) -> Path:
    """Return the best checkpoint of a configuration, trained now where it is not stored.

    Args:
        config: whole, with the data's path and the seed.
        folder: holds the models, one folder a key.
        train: `marey.training.loop.train`, or what stands for it in a test.
        options: further arguments of `train`.
    """
    out = folder / model_key(config)
    if not (out / "done").is_file():
        shutil.rmtree(out, ignore_errors=True)
        train(config, out, **options)
        (out / "done").touch()
    return out / "best"
