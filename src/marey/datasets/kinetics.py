"""Kinetics-400 and Kinetics-600: `<split>/<label>/<youtube_id>_<start:06d>_<end:06d>.mp4` and the
official CSVs.

Quirks handled: labels with commas, quotes and parentheses (a CSV parser reads them); folders with
spaces or underscores; test clips flat under `test/`; ids that begin with `-`; SlowFast lists
`path label` without a header.
"""

from __future__ import annotations

import csv
from pathlib import Path

from marey.datasets.index import SPLIT_NAMES, DatasetIndex, Sample
from marey.errors import UserError

_COLUMNS = {"youtube_id", "time_start", "time_end"}
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


def recognise(root: Path) -> str | None:
    """Return "kinetics400" or "kinetics600" (told by the number of labels) where an official CSV is
    in the folder."""
    listings = _listings(root)
    if not listings:
        return None
    labels = {row.get("label") for listing in listings for row in _rows(listing)} - {None, ""}
    return "kinetics600" if len(labels) > 400 else "kinetics400"


def read(root: Path, name: str = "kinetics400", variant: int = 1) -> DatasetIndex:
    """Read every official CSV in the folder (or its `annotations/`); class order is ASCII order, as
    everywhere else.

    Raises:
        UserError: if there is no official CSV.
    """
    listings = _listings(root)
    if not listings:
        raise UserError(
            f"{root}: no CSV with the columns label,youtube_id,time_start,time_end,split here or "
            "in annotations/; put the official train.csv, val.csv, test.csv beside the videos"
        )
    samples: list[Sample] = []
    for listing in listings:
        for row in _rows(listing):
            split = SPLIT_NAMES.get(
                (row.get("split") or listing.stem.split("_")[-1]).lower(), listing.stem
            )
            samples.append(
                Sample(
                    path=_find_clip(root, split, row, listing),
                    label=row.get("label") or None,
                    split=split,
                    group=row["youtube_id"],
                )
            )
    names = tuple(sorted({sample.label for sample in samples if sample.label}))
    return DatasetIndex(samples=tuple(samples), class_names=names, name=name, root=root)


def _find_clip(root: Path, split: str, row: dict[str, str], listing: Path) -> Path:
    try:
        start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
        stem = f"{row['youtube_id']}_{start:06d}_{end:06d}"
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{listing}: row of {row['youtube_id']}: {error}; times are numbers of seconds"
        ) from error
    label = row.get("label") or ""
    folders = [
        base / folder
        for base in (root / split, root / f"{split}_256", root / "videos" / split, root)
        for folder in ([label, label.replace(" ", "_")] if label else [""])
        if (base / folder).is_dir()
    ]
    candidates = [folder / f"{stem}{suffix}" for folder in folders for suffix in _SUFFIXES]
    default = root / split / label / f"{stem}.mp4"
    return next(
        (path for path in candidates if path.exists()), candidates[0] if candidates else default
    )


def _listings(root: Path) -> list[Path]:
    folders = [folder for folder in (root, root / "annotations") if folder.is_dir()]
    return [
        path
        for folder in folders
        for path in sorted(folder.glob("*.csv"))
        if set(_header(path)) >= _COLUMNS
    ]


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        return next(csv.reader(stream), [])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))
