"""ActivityNet and THUMOS14: untrimmed videos with the times of every action in them.

ActivityNet's JSON (`activity_net.v1-3.min.json`; THUMOS14 is often passed on in the same form):
`{"database": {id: {"subset": ..., "annotations": [{"label": ..., "segment": [start, end]}]}}}`.
THUMOS14's own lists: `annotation/<Class>_{val,test}.txt`, lines of `<video> <start> <end>`.

Quirks handled: ids without the `v_` of the file names; videos that are no longer to be had, which
are left out; segments with their ends swapped; THUMOS14's class "Ambiguous", which is no action.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marey.datasets.index import SPLIT_NAMES, VIDEO_SUFFIXES, DatasetIndex, Sample
from marey.errors import UserError

AMBIGUOUS = "Ambiguous"


def recognise(root: Path) -> str | None:
    """Return "activitynet" or "thumos14" where their annotations are in the folder."""
    if any(root.glob("activity_net*.json")):
        return "activitynet"
    return "thumos14" if any(root.glob("thumos14*.json")) or _lists(root) else None


def read(root: Path, name: str = "activitynet", variant: int = 1) -> DatasetIndex:
    """Read one sample for each annotated action of the videos that are there.

    Raises:
        UserError: if there are no annotations, they cannot be read, or none of their videos is
            there.
    """
    pattern = "activity_net*.json" if name == "activitynet" else "thumos14*.json"
    listing = next(iter(sorted(root.glob(pattern))), None)
    if listing is not None:
        found = _of_json(listing)
    elif name == "thumos14" and _lists(root):
        found = [action for path in _lists(root) for action in _of_list(path)]
    else:
        raise UserError(
            f"{root}: no {pattern}"
            + (" and no annotation/<Class>_val.txt" if name == "thumos14" else "")
            + "; put the official annotations beside the videos"
        )

    files = _videos(root)
    samples = []
    for video, split, label, start, end in found:
        path = files.get(video) or files.get(f"v_{video}")
        if path is not None and label != AMBIGUOUS:
            samples.append(
                Sample(
                    path=path,
                    label=label,
                    split=split,
                    group=video,
                    start_seconds=min(start, end),
                    end_seconds=max(start, end),
                )
            )
    if not samples:
        raise UserError(
            f"{root}: {len(found)} annotated actions, but none of their videos is here or in "
            "videos/; put them there under the names of the annotations"
        )
    names = tuple(sorted({str(sample.label) for sample in samples}))
    return DatasetIndex(samples=tuple(samples), class_names=names, name=name, root=root)


Action = tuple[str, str | None, str, float, float]
"""Video, split, label, start and end in seconds."""


def _of_json(path: Path) -> list[Action]:
    try:
        database: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["database"]
        return [
            (
                video,
                SPLIT_NAMES.get(str(entry.get("subset", "")).lower()),
                str(action["label"]),
                float(action["segment"][0]),
                float(action["segment"][1]),
            )
            for video, entry in database.items()
            for action in entry.get("annotations", ())
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path}: not in ActivityNet's form ({type(error).__name__}: {error}); expected "
            '{"database": {id: {"subset", "annotations": [{"label", "segment"}]}}}'
        ) from error


def _of_list(path: Path) -> list[Action]:
    label, _, part = path.stem.rpartition("_")
    found: list[Action] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            video, start, end = line.split()
            found.append((video, SPLIT_NAMES[part], label, float(start), float(end)))
        except ValueError as error:
            raise UserError(
                f"{path}:{number}: '{line.strip()}' is not <video> <start> <end> in seconds"
            ) from error
    return found


def _lists(root: Path) -> list[Path]:
    return sorted(
        path for part in ("val", "test") for path in (root / "annotation").glob(f"*_{part}.txt")
    )


def _videos(root: Path) -> dict[str, Path]:
    """Return name without suffix -> file."""
    return {
        path.stem: path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES
    }
