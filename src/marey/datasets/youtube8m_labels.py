"""The label space of YouTube-8M: vocabulary, hierarchy, names."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marey.errors import UserError
from marey.files import write_csv


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Which class ids a label id of the files turns into."""

    class_names: tuple[str, ...]
    """K names; a hierarchical one reads "Sports:Combat:Wrestling"."""
    classes_of: tuple[tuple[int, ...], ...]
    """For each label id of the files the classes it implies; () drops it."""

    def targets(self, labels: Iterable[int], source: str = "") -> NDArray[np.float32]:
        """Return the 0/1 vector of K classes for some label ids.

        Raises:
            UserError: if an id is not in the vocabulary.
        """
        target = np.zeros(len(self.class_names), dtype=np.float32)
        for label in labels:
            if not 0 <= label < len(self.classes_of):
                raise UserError(
                    f"{source + ': ' if source else ''}label id {label} is not in the vocabulary "
                    f"of {len(self.classes_of)} labels; give the vocabulary these records were "
                    "written with"
                )
            target[list(self.classes_of[label])] = 1
        return target


def read_vocabulary(path: str | Path) -> LabelSpace:
    """Read the data set's vocabulary CSV (`Index,TrainVideoCount,KnowledgeGraphId,Name,...`): one
    class a row.

    A row without a name is called by its KnowledgeGraphId, a repeated name gets its index.

    Raises:
        UserError: if the columns are missing or the indices are not 0, 1, 2, ...
    """
    rows = _read_csv(path, ("Index", "Name"))
    names: list[str] = []
    for number, row in enumerate(sorted(rows, key=lambda row: int(row["Index"]))):
        if int(row["Index"]) != number:
            raise UserError(
                f"{path}: indices must run 0, 1, 2, ...; {number} is missing or doubled"
            )
        name = row["Name"] or row.get("KnowledgeGraphId") or f"label {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return LabelSpace(class_names=tuple(names), classes_of=tuple((k,) for k in range(len(names))))


def read_hierarchy(path: str | Path, vocabulary: LabelSpace) -> LabelSpace:
    """Map a vocabulary to a hierarchical label space; a label implies its ancestors.

    The paper trains on 431 hierarchical classes that are not published, so the mapping comes from a
    file.

    Args:
        path: CSV with the columns `Index` (a label id) and `Path` ("Sports:Combat:Wrestling");
            several rows may map one label, labels without a row are dropped.
        vocabulary: of the records.

    Raises:
        UserError: if the columns are missing or an index is not in the vocabulary.
    """
    chains: dict[int, set[str]] = {}
    for row in _read_csv(path, ("Index", "Path")):
        index, parts = int(row["Index"]), [part.strip() for part in row["Path"].split(":")]
        if not 0 <= index < len(vocabulary.classes_of):
            raise UserError(
                f"{path}: label id {index} is not in the vocabulary of "
                f"{len(vocabulary.classes_of)} labels"
            )
        chains.setdefault(index, set()).update(
            ":".join(parts[:n]) for n in range(1, len(parts) + 1)
        )
    names = tuple(sorted(set().union(*chains.values()))) if chains else ()
    position = {name: k for k, name in enumerate(names)}
    return LabelSpace(
        class_names=names,
        classes_of=tuple(
            tuple(sorted(position[name] for name in chains.get(index, ())))
            for index in range(len(vocabulary.classes_of))
        ),
    )


def _read_csv(path: str | Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path}: column {', '.join(missing)} is missing; the header is "
                f"{','.join(reader.fieldnames or ()) or 'empty'}"
            )
        return list(reader)


def write_vocabulary(
    path: str | Path, names: Sequence[str], counts: Sequence[int] | None = None
) -> None:
    """Write a vocabulary CSV with the data set's header for some class names."""
    header = [
        "Index",
        "TrainVideoCount",
        "KnowledgeGraphId",
        "Name",
        "WikiUrl",
        "Vertical1",
        "Vertical2",
        "Vertical3",
        "WikiDescription",
    ]
    rows = [
        [k, counts[k] if counts else 0, "", name, "", "", "", "", ""]
        for k, name in enumerate(names)
    ]
    write_csv(path, [header, *rows])
