"""HMDB51 (Kuehne et al., 2011): `<class>/*.avi` and
`testTrainMulti_7030_splits/<class>_test_split<N>.txt`.

Quirks handled: 0 = unused, 1 = train, 2 = test; trailing blanks; file names with `#`, `(`, `[` and
the like are never globbed; class names that are prefixes of others (kick, kick_ball) are matched
whole.
"""

from __future__ import annotations

import re
from pathlib import Path

from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError

_SPLIT_OF_CODE = {"1": "train", "2": "test"}
_LISTING = re.compile(r"(?P<label>.+)_test_split(?P<number>[123])\.txt")
TAGS = re.compile(r"_[hufl]_(?:nm|cm)_np\d_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+$")
"""What follows the class in a file name: body, camera motion, people, view, quality, number."""


def recognise(root: Path) -> str | None:
    """Return "hmdb51" where the folder has the official split files."""
    return "hmdb51" if _lists_folder(root) is not None else None


def read(root: Path, name: str = "hmdb51", variant: int = 1) -> DatasetIndex:
    """Read HMDB51 with official split 1, 2 or 3 (`variant`); clips coded 0 (unused in that split)
    are left out.

    The group of a clip is its source film: clips of one film look alike.

    Raises:
        UserError: if the split files are missing or a line cannot be read.
    """
    lists = _lists_folder(root)
    if lists is None:
        raise UserError(
            f"{root}: no testTrainMulti_7030_splits/<class>_test_split1.txt; unpack "
            "test_train_splits.rar beside the class folders"
        )
    listings = {
        match["label"]: path
        for path in sorted(lists.iterdir())
        if (match := _LISTING.fullmatch(path.name)) and int(match["number"]) == variant
    }
    if not listings:
        raise UserError(
            f"{lists}: no files for split {variant}; HMDB51 has the official splits 1, 2 and 3"
        )
    videos = next(
        (root / folder for folder in ("hmdb51_org", "videos") if (root / folder).is_dir()), root
    )
    samples = [
        sample
        for label, listing in listings.items()
        for sample in _read_listing(listing, label, videos)
    ]
    return DatasetIndex(
        samples=tuple(samples),
        class_names=tuple(sorted(listings)),
        name=f"hmdb51:{variant}",
        root=root,
    )


def source_film(stem: str, label: str) -> str:
    """Return the source part of `<source>_<class>_<body>_<cam>_<np>_<view>_<quality>_<n>`."""
    return TAGS.sub("", stem).removesuffix(f"_{label}")


def _read_listing(listing: Path, label: str, videos: Path) -> list[Sample]:
    samples = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.rsplit(None, 1)
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise UserError(f"{listing}:{number}: '{line.strip()}' is not '<file> 0|1|2'")
        if fields[1] in _SPLIT_OF_CODE:
            path = videos / label / fields[0].strip()
            samples.append(
                Sample(
                    path=path,
                    label=label,
                    split=_SPLIT_OF_CODE[fields[1]],
                    group=source_film(path.stem, label),
                )
            )
    return samples


def _lists_folder(root: Path) -> Path | None:
    for folder in (root / "testTrainMulti_7030_splits", root / "splits", root):
        if folder.is_dir() and any(_LISTING.fullmatch(path.name) for path in folder.iterdir()):
            return folder
    return None
