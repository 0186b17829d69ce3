"""Something-Something V2: `20bn-something-something-v2/<id>.webm` and the JSON files of either
distribution.

Quirks handled: ids and label numbers are strings; the key of a label is its template without
brackets; the newer distribution keeps `labels/{labels,train,validation,test}.json`, the older
`something-something-v2-*.json`. Mirrored clips change their label here: recipes on this set never
flip.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marey.datasets.index import DatasetIndex, Sample
from marey.errors import UserError

_SPLIT_OF_FILE = {"train": "train", "validation": "val", "test": "test"}


def recognise(root: Path) -> str | None:
    """Return "something_v2" where the label file of either distribution is in the folder."""
    return "something_v2" if _annotation(root, "labels") is not None else None


def read(root: Path, name: str = "something_v2", variant: int = 1) -> DatasetIndex:
    """Read the data set; class order is the number in the labels file.

    Raises:
        UserError: if the labels or the training list are missing, or a template is not in the
            labels.
    """
    labels_file = _annotation(root, "labels")
    if labels_file is None:
        raise UserError(
            f"{root}: no labels/labels.json and no something-something-v2-labels.json; put the "
            "annotation files beside the videos"
        )
    numbers: dict[str, str] = _load(labels_file)
    class_names = tuple(sorted(numbers, key=lambda key: int(numbers[key])))
    videos = next(
        (
            root / folder
            for folder in ("20bn-something-something-v2", "videos")
            if (root / folder).is_dir()
        ),
        root,
    )
    samples: list[Sample] = []
    for stem, split in _SPLIT_OF_FILE.items():
        listing = _annotation(root, stem)
        for entry in _load(listing) if listing else []:
            label = (
                entry["template"].replace("[", "").replace("]", "") if "template" in entry else None
            )
            if label is not None and label not in numbers:
                raise UserError(
                    f"{listing}: video {entry['id']}: template '{entry['template']}' is not in "
                    f"{labels_file.name}; the files belong to different releases"
                )
            samples.append(Sample(path=_video(videos, str(entry["id"])), label=label, split=split))
    if not samples:
        raise UserError(
            f"{root}: labels but no train.json, validation.json or test.json beside them"
        )
    return DatasetIndex(
        samples=tuple(samples), class_names=class_names, name="something_v2", root=root
    )


def _video(videos: Path, video_id: str) -> Path:
    folder = videos / video_id
    return folder if folder.is_dir() else videos / f"{video_id}.webm"


def _annotation(root: Path, stem: str) -> Path | None:
    candidates = (root / "labels" / f"{stem}.json", root / f"something-something-v2-{stem}.json")
    return next((path for path in candidates if path.is_file()), None)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: not JSON ({error.msg}); download the file again"
        ) from error
