"""Open whatever `--data` names: an official layout, class folders, a packed folder or a manifest."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from marey.datasets.index import DatasetIndex, read_folders, read_manifest, split_by_name
from marey.errors import UserError, unknown_name
from marey.evaluation.classification import EvaluateOptions

if TYPE_CHECKING:
    from marey.datasets import DatasetIndex

if TYPE_CHECKING:
    from marey.datasets.index import DatasetIndex



def open_dataset(data: str | Path, *, dataset: str | None = None, split_by: str | None = None) -> DatasetIndex:
    """Read the index of a data set in any layout of the data contract.

    Args:
        data: a folder, or a CSV manifest with the columns path,label[,split,group,start_seconds,end_seconds].
        dataset: name of an official layout, such as "ucf101" or "ucf101:2" for its second split; None recognises it.
        split_by: regular expression searched in each relative path; the name of the group that matched is the split
            ("(?P<train>set1)|(?P<test>set2)"), or the text of its first group ("(train|test)").

    Raises:
        UserError: if nothing is there, or no layout fits.
    """
    from marey.datasets import open as official

    root = Path(data)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder; --data takes a folder of class folders or a manifest.csv")
    if dataset is not None:
        index = official.read(root, dataset)
    elif root.is_file():
        index = read_manifest(root)
    elif (root / "packed.json").is_file():
        index = replace(read_manifest(root / "manifest.csv", frames=root), name="packed")
    elif (root / "manifest.csv").is_file():
        index = read_manifest(root / "manifest.csv")
    else:
        found = official.recognise(root)
        index = official.read(root, found) if found else read_folders(root)
    return split_by_name(index, split_by) if split_by else index

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



def choose_split(data: str | Path, options: EvaluateOptions) -> DatasetIndex:
    """Open the data and take the split to evaluate on; samples without label are left out.

    Raises:
        UserError: if the split is empty or nothing is labelled.
    """
    from marey.datasets import open_dataset
    from marey.datasets.split import labelled

    index = open_dataset(data, dataset=options.dataset, split_by=options.split_by)
    name = options.split or next((split for split in ("test", "val") if split in index.splits), None)
    return labelled(index.split(name) if name is not None else index)
