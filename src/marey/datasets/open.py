"""Opening a data set: an official layout, class folders, a packed folder or a manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from marey.datasets import activitynet, hmdb51, hmdb_simp, jester, kinetics, something_v2, ucf101
from marey.datasets.groups import with_groups_of_names
from marey.datasets.index import DatasetIndex, read_folders, split_by_name, videos_below
from marey.datasets.manifest import read_manifest
from marey.datasets.named_files import read_named_files
from marey.datasets.split import labelled
from marey.errors import UserError, unknown_name
from marey.files import untrusted

LAYOUTS: dict[str, Callable[[Path, str, int], DatasetIndex]] = {
    "ucf101": ucf101.read,
    "hmdb51": hmdb51.read,
    "hmdb_simp": hmdb_simp.read,
    "kinetics400": kinetics.read,
    "kinetics600": kinetics.read,
    "something_v2": something_v2.read,
    "jester": jester.read,
    "activitynet": activitynet.read,
    "thumos14": activitynet.read,
}
"""Name for `--dataset` -> reader of that official layout:
(root, name, number of the official split)."""
RECOGNISERS: tuple[Callable[[Path], str | None], ...] = (
    ucf101.recognise,
    hmdb51.recognise,
    hmdb_simp.recognise,
    kinetics.recognise,
    something_v2.recognise,
    jester.recognise,
    activitynet.recognise,
)
"""Each tells its layout by the annotation files in a folder, and returns its name for
`--dataset`."""


def open_dataset(
    data: str | Path, *, dataset: str | None = None, split_by: str | None = None
) -> DatasetIndex:
    """Read the index of a data set in any layout of the data contract.

    Folders and manifests that name no group get the groups that their file names tell
    (`marey.datasets.groups`).

    Args:
        data: a folder, or a CSV manifest with the columns
            path,label[,split,group,start_seconds,end_seconds].
        dataset: name of an official layout, such as "ucf101" or "ucf101:2" for its second split;
            None recognises it.
        split_by: regular expression searched in each relative path; the name of the group that
            matched is the split ("(?P<train>set1)|(?P<test>set2)"), or the text of its first group
            ("(train|test)").

    Raises:
        UserError: if nothing is there, or no layout fits.
    """
    root = Path(data)
    if not root.exists():
        raise UserError(
            f"{root}: no such file or folder; --data takes a folder of class folders or a "
            "manifest.csv"
        )

    with untrusted(root, "a data set"):
        index = _open(root, dataset)
    return split_by_name(index, split_by) if split_by else index


def _open(root: Path, dataset: str | None) -> DatasetIndex:
    if dataset is not None:
        return read_layout(root, dataset)
    if root.is_file():
        return with_groups_of_names(read_manifest(root))
    if (root / "packed.json").is_file():
        return replace(read_manifest(root / "manifest.csv", frames=root), name="packed")
    if (root / "manifest.csv").is_file():
        return with_groups_of_names(read_manifest(root / "manifest.csv"))
    found = recognise(root)
    if found:
        return read_layout(root, found)
    lists = list(root.glob("*.csv"))
    if len(lists) == 1 and videos_below(root):  # a flat folder with its list
        return with_groups_of_names(read_manifest(lists[0]))
    return with_groups_of_names(read_named_files(root) or read_folders(root))


def list_datasets() -> list[str]:
    """Return the names `--dataset` takes, sorted."""
    return sorted(LAYOUTS)


def recognise(root: Path) -> str | None:
    """Return the name of the official layout that a folder has, told by its annotation files, or
    None."""
    names = (name_of(root) for name_of in RECOGNISERS)
    return next((name for name in names if name is not None), None)


def read_layout(root: Path, name: str) -> DatasetIndex:
    """Read a folder as the official layout of that name; "ucf101:2" asks for the second official
    split.

    Raises:
        UserError: if the name or the split is unknown, or the annotation files are missing.
    """
    name, _, number = name.partition(":")
    if number and not number.isdigit():
        raise UserError(
            f"--dataset {name}:{number}: the part after ':' is the number of an official split, "
            "e.g. 1"
        )
    if name not in LAYOUTS:
        raise unknown_name("data set", name, LAYOUTS)
    return LAYOUTS[name](root, name, int(number) if number else 1)


def choose_split(
    data: str | Path,
    *,
    dataset: str | None = None,
    split: str | None = None,
    split_by: str | None = None,
) -> DatasetIndex:
    """Open the data and take the split to evaluate on; samples without label are left out.

    Args:
        data, dataset, split_by: see `open_dataset`.
        split: None takes "test", else "val", else everything.

    Raises:
        UserError: if the split is empty or nothing is labelled.
    """
    index = open_dataset(data, dataset=dataset, split_by=split_by)
    if split is None:
        split = next((name for name in ("test", "val") if name in index.splits), None)
    return labelled(index.split(split) if split is not None else index)
