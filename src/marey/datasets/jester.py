"""20BN-Jester V1: `20bn-jester-v1/<id>/00001.jpg` frame folders and semicolon-separated lists
without a header.

Class order is the line order of `jester-v1-labels.csv` of the user's copy. Mirrored clips change
their label here (Swiping Left, Swiping Right): recipes on this set never flip.
"""

from __future__ import annotations

from pathlib import Path

from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError

_SPLIT_OF_FILE = {"train": "train", "validation": "val", "test": "test"}


def recognise(root: Path) -> str | None:
    """Return "jester" where the label list is in the folder (or its `annotations/`)."""
    return "jester" if _annotation(root, "labels") is not None else None


def read(root: Path, name: str = "jester", variant: int = 1) -> DatasetIndex:
    """Read the data set; the test list has ids only, so its labels are None.

    Raises:
        UserError: if the labels are missing or a line names an unknown label, with file and line.
    """
    labels_file = _annotation(root, "labels")
    if labels_file is None:
        raise UserError(
            f"{root}: no jester-v1-labels.csv; put the official CSV files beside the frame folders"
        )
    class_names = tuple(line for line in _lines(labels_file))
    frames = next(
        (root / folder for folder in ("20bn-jester-v1", "frames") if (root / folder).is_dir()), root
    )
    samples: list[Sample] = []
    for stem, split in _SPLIT_OF_FILE.items():
        listing = _annotation(root, stem)
        for number, line in enumerate(_lines(listing) if listing else [], start=1):
            video_id, _, label = line.partition(";")
            if label and label not in class_names:
                raise UserError(f"{listing}:{number}: label '{label}' is not in {labels_file.name}")
            samples.append(Sample(path=frames / video_id, label=label or None, split=split))
    if not samples:
        raise UserError(
            f"{root}: labels but no jester-v1-train.csv or jester-v1-validation.csv beside them"
        )
    return DatasetIndex(samples=tuple(samples), class_names=class_names, name="jester", root=root)


def _annotation(root: Path, stem: str) -> Path | None:
    candidates = (root / f"jester-v1-{stem}.csv", root / "annotations" / f"jester-v1-{stem}.csv")
    return next((path for path in candidates if path.is_file()), None)


def _lines(path: Path) -> list[str]:
    return [
        line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
    ]
