"""UCF101 (Soomro et al., 2012): `UCF-101/<Class>/v_<Class>_gGG_cCC.avi` and
`ucfTrainTestlist/*.txt`.

Quirks handled: list files with CRLF; test lists with or without a label; class order from
classInd.txt (a sorted folder listing swaps Hammering and HammerThrow); stems spelt
`v_HandStandPushups` in the folder `HandstandPushups`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError

_GROUP = re.compile(r"_g(\d+)_c\d+", re.IGNORECASE)


def recognise(root: Path) -> str | None:
    """Return "ucf101" where the folder has the official split lists."""
    return "ucf101" if _lists_folder(root) is not None else None


def read(root: Path, name: str = "ucf101", variant: int = 1) -> DatasetIndex:
    """Read UCF101 with official split 1, 2 or 3 (`variant`); label = 1-based line number in
    classInd.txt.

    Raises:
        UserError: if the lists are missing or a line cannot be read.
    """
    lists = _lists_folder(root)
    if lists is None:
        raise UserError(
            f"{root}: no classInd.txt here or in ucfTrainTestlist/; unpack "
            "UCF101TrainTestSplits-RecognitionTask.zip beside the videos"
        )
    class_names = tuple(line.split(maxsplit=1)[1] for line in _lines(lists / "classInd.txt"))
    videos = next(
        (root / folder for folder in ("UCF-101", "videos") if (root / folder).is_dir()), root
    )
    samples = []
    for split, stem in (("train", "trainlist"), ("test", "testlist")):
        listing = lists / f"{stem}{variant:02d}.txt"
        if not listing.is_file():
            raise UserError(f"{listing}: no such file; UCF101 has the official splits 1, 2 and 3")
        for number, line in enumerate(_lines(listing), start=1):
            entry = line.split()[0]
            label, _, file_name = entry.partition("/")
            if label not in class_names or not file_name:
                raise UserError(
                    f"{listing}:{number}: '{entry}' is not <Class>/<file> with a class of "
                    "classInd.txt"
                )
            group = _GROUP.search(file_name)
            samples.append(
                Sample(
                    path=find_ignoring_case(videos / label, file_name),
                    label=label,
                    split=split,
                    group=f"{label}_g{group.group(1)}" if group else None,
                )
            )
    return DatasetIndex(
        samples=tuple(samples), class_names=class_names, name=f"ucf101:{variant}", root=root
    )


def find_ignoring_case(folder: Path, file_name: str) -> Path:
    """Return the entry of a folder that has this name, whatever its case; the plain path where
    there is none."""
    return _entries(folder).get(file_name.lower(), folder / file_name)


@cache
def _entries(folder: Path) -> dict[str, Path]:
    return {entry.name.lower(): entry for entry in folder.iterdir()} if folder.is_dir() else {}


def _lists_folder(root: Path) -> Path | None:
    return next(
        (
            folder
            for folder in (root / "ucfTrainTestlist", root)
            if (folder / "classInd.txt").is_file()
        ),
        None,
    )


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
