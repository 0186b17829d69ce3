"""Official layouts under their names: each module tells whether a folder is its data set, and reads it."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from marey.errors import UserError, unknown_name

if TYPE_CHECKING:
    from marey.datasets.index import DatasetIndex

DATASETS: dict[str, str] = {
    "ucf101": "marey.datasets.ucf101",
    "hmdb51": "marey.datasets.hmdb51",
    "hmdb_simp": "marey.datasets.hmdb_simp",
    "kinetics400": "marey.datasets.kinetics",
    "kinetics600": "marey.datasets.kinetics",
    "something_v2": "marey.datasets.something_v2",
    "jester": "marey.datasets.jester",
}
"""Name for `--dataset` -> module with `recognise(root) -> str | None` and `read(root, name, variant)`."""


def list_datasets() -> list[str]:
    """Return the names `--dataset` takes, sorted."""
    return sorted(DATASETS)


def _module(name: str) -> ModuleType:
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return importlib.import_module(DATASETS[name])


def recognise(root: Path) -> str | None:
    """Return the name of the official layout a folder has, told by its annotation files, or None."""
    for module in dict.fromkeys(DATASETS.values()):
        name = importlib.import_module(module).recognise(root)
        if name is not None:
            return name
    return None


def read(root: Path, name: str) -> DatasetIndex:
    """Read a folder as the official layout of that name; "ucf101:2" asks for the second official split.

    Raises:
        UserError: if the name or variant is unknown, or the annotation files are missing.
    """
    name, _, variant = name.partition(":")
    if variant and not variant.isdigit():
        raise UserError(f"--dataset {name}:{variant}: the part after ':' is the number of an official split, e.g. 1")
    return _module(name).read(root, name, int(variant) if variant else 1)
