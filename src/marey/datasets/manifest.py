"""Manifests: an index as a CSV file (path,label[,split,group,start_seconds,end_seconds])."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marey.datasets.index import SPLIT_NAMES, DatasetIndex, Sample
from marey.errors import UserError
from marey.files import write_csv

SPELLINGS: dict[str, tuple[str, ...]] = {
    "path": (
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "video",
        "video_path",
        "clip",
    ),
    "label": ("class", "action", "category", "activity", "class_name"),
    "group": ("person", "subject", "actor", "participant", "scene", "place"),
    "start_seconds": ("start", "begin", "from", "start_time", "start_s", "onset"),
    "end_seconds": ("end", "stop", "to", "end_time", "end_s", "offset"),
}
"""Column -> what people call it too, in any case; read where the column itself is missing."""


def read_manifest(manifest: Path, frames: Path | None = None) -> DatasetIndex:
    """Read a CSV manifest; paths are relative to it, then to its parent folder's parent.

    Args:
        frames: folder of a packed data set, whose rows number an array's clips and are not files.

    Raises:
        UserError: if a column is missing or a row cannot be read, with file and line.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream)
            reader.fieldnames = columns = our_columns(reader.fieldnames or [])
            if {"rank", "probability"} <= set(columns):
                raise UserError(
                    f"{manifest}: holds a model's answers, not labels; look them over and keep the "
                    "right ones in a CSV with the columns path,label"
                )
            missing = [name for name in ("path", "label") if name not in columns]
            if missing:
                raise UserError(
                    f"{manifest}: no column '{missing[0]}' (it has: "
                    f"{', '.join(columns) or 'nothing'}); "
                    "a manifest has the columns path,label[,split,group,start_seconds,end_seconds]"
                )
            samples = tuple(_manifest_row(row, manifest, reader.line_num, frames) for row in reader)
    except csv.Error as error:
        raise UserError(f"{manifest}: not a CSV file ({error}); write it again") from error
    if not samples:
        raise UserError(f"{manifest}: no rows below the header; write one row per video")
    classes = tuple(sorted({sample.label for sample in samples if sample.label is not None}))
    return DatasetIndex(samples=samples, class_names=classes, name="manifest", root=manifest.parent)


def our_columns(columns: Sequence[str]) -> list[str]:
    """Return the header with the columns that people call otherwise under our names."""
    found = list(columns)
    for name, spellings in SPELLINGS.items():
        plain = [str(column).strip().lower().replace(" ", "_") for column in found]
        place = next((plain.index(word) for word in (name, *spellings) if word in plain), None)
        if name not in found and place is not None:
            found[place] = name
    return found


def seconds_of(text: str) -> float:
    """Return seconds: a number, or a clock time such as "1:02.5" or "0:01:02".

    Raises:
        ValueError: if it is neither.
    """
    parts = text.strip().split(":")
    if len(parts) > 3:
        raise ValueError(f"no time: '{text}'")
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + float(part)
    return seconds


def _manifest_row(row: dict[str, str], manifest: Path, line: int, frames: Path | None) -> Sample:
    if not row.get("path"):
        raise UserError(f"{manifest}:{line}: empty path; every row names a video")
    texts = [value for key, value in row.items() if key != "path" and isinstance(value, str)]
    if any("\udc80" <= letter <= "\udcff" for text in texts for letter in text):
        raise UserError(f"{manifest}:{line}: not UTF-8 text; save the manifest as UTF-8 CSV")
    if "\0" in row["path"]:
        raise UserError(f"{manifest}:{line}: the path holds a zero byte; write the file again")
    base = manifest.parent
    path = base / row["path"]
    try:
        if frames is None and not path.exists() and (base.parent / row["path"]).exists():
            path = base.parent / row["path"]
    except OSError as error:
        raise UserError(
            f"{manifest}:{line}: no path of a video ({error.strerror}): "
            f"'{row['path'][:80]}'; every row names one"
        ) from error
    spelled = (row.get("split") or "").strip()
    try:
        start, end = (
            seconds_of(row[key]) if row.get(key) else None
            for key in ("start_seconds", "end_seconds")
        )
        position = int(row["row"]) if row.get("row") else (line - 2 if frames is not None else None)
    except ValueError as error:
        raise UserError(
            f"{manifest}:{line}: {error}; start_seconds and end_seconds are numbers, or clock "
            "times such as 1:02.5"
        ) from error
    if any(second is not None and not 0 <= second < 1e9 for second in (start, end)):
        raise UserError(
            f"{manifest}:{line}: start_seconds and end_seconds are seconds from 0 up, got {start} "
            f"and {end}"
        )
    if start is not None and end is not None and end <= start:
        raise UserError(
            f"{manifest}:{line}: end_seconds {end} is not after start_seconds {start}; correct them"
        )
    return Sample(
        path=path,
        label=row.get("label") or None,
        split=SPLIT_NAMES.get(spelled.lower(), spelled) or None,
        group=row.get("group") or None,
        start_seconds=start,
        end_seconds=end,
        row=position if frames is not None else None,
    )


def write_manifest(index: DatasetIndex, manifest: Path) -> None:
    """Write an index as a CSV manifest beside or above its videos; written to a temporary name and
    renamed."""
    rows: list[list[Any]] = [["path", "label", "split", "group", "start_seconds", "end_seconds"]]
    base = manifest.parent.resolve()
    for sample in index.samples:
        path = sample.path.resolve()
        name = path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
        rows.append(
            [
                name,
                sample.label,
                sample.split,
                sample.group,
                sample.start_seconds,
                sample.end_seconds,
            ]
        )
    write_csv(manifest, rows)
