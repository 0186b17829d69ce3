"""The files of AVA: rows of boxes, label maps, timestamps. Gu et al., "AVA", CVPR 2018; shared by
data set and metric.

Coordinates are fractions of width and height, (0, 0) top left, in the order x1, y1, x2, y2.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from marey.errors import UserError
from marey.files import untrusted, write_csv, write_text

with Path(__file__).with_name("ava_classes.csv").open(encoding="utf-8", newline="") as _file:
    AVA_60_CLASSES = {int(row["id"]): row["name"] for row in csv.DictReader(_file)}
"""Id -> name of the 60 evaluated classes (`ava_action_list_v2.*_for_activitynet_*.pbtxt`)."""

NUM_AVA_CLASSES = 80
"""Ids 1..80 may stand in official files; the 20 that `AVA_60_CLASSES` leaves out are annotated but
not evaluated."""


@dataclass(frozen=True, kw_only=True)
class BoxRows:
    """The rows of one file of boxes, one entry per (box, action) row, N rows."""

    path: str
    """The file, for messages."""
    keys: tuple[tuple[str, float], ...]
    """(video id, seconds) of every image the file names, in the order of their first row."""
    image: np.ndarray
    """int64, (N,): which of `keys` the row belongs to."""
    boxes_xyxy_norm: np.ndarray
    """float64, (N, 4): x1, y1, x2, y2 as fractions of width and height."""
    class_ids: np.ndarray
    """int64, (N,): action id, 0 where the file leaves it empty (a box without action)."""
    last: np.ndarray
    """float64, (N,): column 8, the score of a detection or the person id of a ground truth row; 1
    where absent."""
    lines: np.ndarray
    """int64, (N,): line of the file, 1-based."""

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: np.ndarray) -> BoxRows:
        """Return some of the rows (mask or indices); `keys` stay, so an image may be left without
        rows."""
        return replace(
            self,
            image=self.image[rows],
            boxes_xyxy_norm=self.boxes_xyxy_norm[rows],
            class_ids=self.class_ids[rows],
            last=self.last[rows],
            lines=self.lines[rows],
        )


def rows_from_arrays(
    keys: Iterable[tuple[str, float]],
    image: np.ndarray,
    boxes_xyxy_norm: np.ndarray,
    class_ids: np.ndarray,
    last: np.ndarray | None = None,
    path: str = "<arrays>",
) -> BoxRows:
    """Make rows out of arrays, as `read_box_rows` makes them out of a file."""
    count = len(image)
    return BoxRows(
        path=path,
        keys=tuple(keys),
        image=np.asarray(image, np.int64).reshape(count),
        boxes_xyxy_norm=np.asarray(boxes_xyxy_norm, np.float64).reshape(count, 4),
        class_ids=np.asarray(class_ids, np.int64).reshape(count),
        last=np.ones(count) if last is None else np.asarray(last, np.float64).reshape(count),
        lines=np.arange(1, count + 1),
    )


def read_box_rows(path: str | Path) -> BoxRows:
    """Read a file of boxes: `video_id,seconds[,x1,y1,x2,y2,action_id[,person_id or score]]`, no
    header.

    A row of two columns names an image without boxes. `action_id` may be empty
    (boxes of an outside detector).

    Raises:
        UserError: naming file and line, if a row has another number of columns or a value that is
            no number.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        rows, lines = [], []
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    for row, line in zip(rows, lines, strict=True):
        if len(row) not in (2, 7, 8):
            raise UserError(
                f"{path}:{line}: expected 2, 7 or 8 columns "
                "(video_id,seconds,x1,y1,x2,y2,action_id,"
                f"person_id or score), got {len(row)}; separate them with commas, without a header"
            )
    try:
        seconds = {text: float(text) for text in {row[1] for row in rows}}
        index: dict[tuple[str, float], int] = {}
        image = [index.setdefault((row[0], seconds[row[1]]), len(index)) for row in rows]
        boxed = [i for i, row in enumerate(rows) if len(row) > 2]
        columns = list(zip(*(rows[i][2:7] for i in boxed), strict=True)) or [()] * 5
        boxes = np.array([[float(text) for text in column] for column in columns[:4]]).T.reshape(
            -1, 4
        )
        class_ids = np.array([int(text) if text else 0 for text in columns[4]], np.int64)
        last = np.array([float(rows[i][7]) if len(rows[i]) == 8 else 1.0 for i in boxed])
    except ValueError as error:
        raise _name_bad_row(path, rows, lines) from error
    return BoxRows(
        path=str(path),
        keys=tuple(index),
        image=np.array(image, np.int64)[boxed],
        boxes_xyxy_norm=boxes,
        class_ids=class_ids,
        last=last,
        lines=np.array(lines, np.int64)[boxed],
    )


def _name_bad_row(path: str | Path, rows: list[list[str]], lines: list[int]) -> UserError:
    names = ("video_id", "seconds", "x1", "y1", "x2", "y2", "action_id", "person_id or score")
    for row, line in zip(rows, lines, strict=True):
        for name, text in zip(names[1:], row[1:], strict=False):
            try:
                (int if name == "action_id" and text else float)(
                    text or ("0" if name == "action_id" else "")
                )
            except ValueError:
                return UserError(
                    f"{path}:{line}: {name} must be a number, got '{text}'; "
                    "remove a header line if the file has one"
                )
    return UserError(f"{path}: a value is no number")


def check_box_rows(rows: BoxRows, label_map: Mapping[int, str]) -> None:
    """Refuse a box without area or outside the image, and an action that the label map lacks.

    Ids 1..80 that the official 60-class list leaves out pass (they are dropped later); so does an
    empty action id.

    Raises:
        UserError: naming file and line of the first bad row.
    """
    x1, y1, x2, y2 = rows.boxes_xyxy_norm.T if len(rows) else np.zeros((4, 0))
    empty = np.logical_not((x1 < x2) & (y1 < y2))
    outside = ((rows.boxes_xyxy_norm < 0) | (rows.boxes_xyxy_norm > 1)).any(axis=1).reshape(-1)
    official = dict(label_map) == AVA_60_CLASSES
    known = [0, *(range(1, NUM_AVA_CLASSES + 1) if official else label_map)]
    unlisted = ~np.isin(rows.class_ids, known)
    for i in np.flatnonzero(empty | outside | unlisted)[:1]:
        box = ", ".join(f"{value:g}" for value in rows.boxes_xyxy_norm[i])
        where = f"{rows.path}:{rows.lines[i]}"
        if empty[i]:
            raise UserError(f"{where}: box ({box}) has no area; expected x1 < x2 and y1 < y2")
        if outside[i]:
            raise UserError(
                f"{where}: box ({box}) leaves the image; expected fractions of width and height in "
                "[0, 1], divide pixels by the frame size"
            )
        raise UserError(
            f"{where}: action id {rows.class_ids[i]} is not in the label map ({len(label_map)} "
            f"ids, {min(label_map)} to {max(label_map)}); add it or correct the row"
        )


def write_box_rows(path: str | Path, rows: BoxRows, decimals: int = 3) -> None:
    """Write rows in the challenge's format: `video_id,seconds,x1,y1,x2,y2,action_id,score`.

    Whole seconds are padded to four digits, as the official files do; scores keep four decimals.
    """
    lines = []
    for i in range(len(rows)):
        video, seconds = rows.keys[rows.image[i]]
        stamp = f"{int(seconds):04d}" if seconds == int(seconds) else f"{seconds:.3f}"
        last = rows.last[i]
        lines.append(
            [
                video,
                stamp,
                *(f"{v:.{decimals}f}" for v in rows.boxes_xyxy_norm[i]),
                rows.class_ids[i] or "",
                int(last) if last == int(last) else f"{last:.4f}",
            ]
        )
    write_csv(path, lines)


def read_label_map(path: str | Path) -> dict[int, str]:
    """Read a label map in either spelling: `item { name: "..." id: 1 }` or
    `label { name: "..." label_id: 1 }`.

    Raises:
        UserError: if no pair is found, or a name stands without an id.
    """
    labels: dict[int, str] = {}
    name: str | None = None
    with untrusted(path, "a label map"):
        text = Path(path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r'\s*name:\s*"(.*)"\s*$', line):
            name = match[1]
        elif match := re.match(r"\s*(?:label_)?id:\s*(\d+)\s*$", line):
            if name is None:
                raise UserError(
                    f"{path}:{number}: an id without a name before it; "
                    'expected item { name: "..." id: N }'
                )
            labels[int(match[1])], name = name, None
    if not labels:
        raise UserError(
            f'{path}: no classes found; expected entries like item {{ name: "walk" id: 14 }}'
        )
    return labels


def write_label_map(path: str | Path, labels: Mapping[int, str]) -> None:
    """Write a label map in the spelling of the 60-class list."""
    text = "".join(
        f'item {{\n  name: "{name}"\n  id: {number}\n}}\n' for number, name in labels.items()
    )
    write_text(path, text)


def read_timestamps(path: str | Path) -> set[tuple[str, float]]:
    """Read `video_id,seconds` rows, such as the official lists of excluded timestamps.

    Raises:
        UserError: naming file and line, if a row is not a name and a number.
    """
    found = set()
    with untrusted(path, "a list of times"):
        text = Path(path).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        video, _, seconds = line.rpartition(",")
        try:
            found.add((video.strip(), float(seconds)))
        except ValueError:
            raise UserError(f"{path}:{number}: expected 'video_id,seconds', got '{line}'") from None
    return found
