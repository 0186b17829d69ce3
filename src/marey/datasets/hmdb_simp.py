"""HMDB_simp: the 25-class, 1,250-video subset of HMDB51 of Kaur's TimeSformer study.

The study names its videos by ids that cannot be traced to HMDB51 files. So either the user has the
study's copy (CSV files `class,video_name` beside frame folders), which is read as it is, or 25 x 50
videos are drawn anew from a folder of HMDB51 classes at seed 42; the index's note says which.
"""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

from marey.datasets.index import DatasetIndex, Sample, videos_below
from marey.errors import UserError

CLASS_NAMES = (
    "brush_hair",
    "cartwheel",
    "catch",
    "chew",
    "climb",
    "climb_stairs",
    "draw_sword",
    "eat",
    "fencing",
    "flic_flac",
    "golf",
    "handstand",
    "kiss",
    "pick",
    "pour",
    "pullup",
    "pushup",
    "ride_bike",
    "shoot_bow",
    "shoot_gun",
    "situp",
    "smile",
    "smoke",
    "throw",
    "wave",
)
VIDEOS_PER_CLASS = 50
SEED = 42
_SPLIT_FILES = {
    "train": ("train.csv", "train_split.csv"),
    "val": ("val.csv", "val_split.csv"),
    "test": ("test.csv", "test_split.csv"),
}


def recognise(root: Path) -> str | None:
    """Return "hmdb_simp" where the study's split CSVs are; HMDB51 itself is never taken for it."""
    found = _split_file(root, "train")
    if found is None:
        return None
    with found.open(encoding="utf-8-sig") as stream:
        return "hmdb_simp" if stream.readline().strip() == "class,video_name" else None


def read(root: Path, name: str = "hmdb_simp", variant: int = 1) -> DatasetIndex:
    """Read the study's copy where its CSVs are, else draw 25 x 50 videos of the user's HMDB51 at
    seed 42.

    The drawn set is split 900/225/125 by class: 36 train, 9 val, 5 test videos of each.

    Raises:
        UserError: if a class of the study is missing or has fewer than 50 videos.
    """
    if recognise(root):
        return _read_study_copy(root)
    videos = next(
        (root / folder for folder in ("hmdb51_org", "videos") if (root / folder).is_dir()), root
    )
    generator = random.Random(SEED)
    samples: list[Sample] = []
    for label in CLASS_NAMES:
        found = videos_below(videos / label) if (videos / label).is_dir() else []
        if len(found) < VIDEOS_PER_CLASS:
            raise UserError(
                f"{videos / label}: {len(found)} videos, HMDB_simp needs {VIDEOS_PER_CLASS} of "
                "each of its 25 classes; give the folder of the whole HMDB51"
            )
        drawn = generator.sample(found, VIDEOS_PER_CLASS)
        splits = ["test"] * 5 + ["val"] * 9 + ["train"] * 36
        samples += [
            Sample(path=path, label=label, split=split)
            for path, split in zip(drawn, splits, strict=True)
        ]
    order = {"train": 0, "val": 1, "test": 2}
    samples.sort(key=lambda sample: (order[str(sample.split)], str(sample.label), sample.path.name))
    return DatasetIndex(
        samples=tuple(samples),
        class_names=CLASS_NAMES,
        name="hmdb_simp",
        root=root,
        note=f"25 x 50 videos drawn from this HMDB51 at seed {SEED}: not the study's own 1,250 "
        "videos, whose ids cannot be traced",
    )


def _read_study_copy(root: Path) -> DatasetIndex:
    samples: list[Sample] = []
    for split in _SPLIT_FILES:
        listing = _split_file(root, split)
        if listing is None:
            raise UserError(
                f"{root}: no {' or '.join(_SPLIT_FILES[split])} beside the other splits of "
                "HMDB_simp"
            )
        with listing.open(newline="", encoding="utf-8-sig") as stream:
            for row in csv.DictReader(stream):
                samples.append(
                    Sample(
                        path=_find_video(root, row["class"], row["video_name"]),
                        label=row["class"],
                        split=split,
                    )
                )
    names = tuple(sorted({str(sample.label) for sample in samples}))
    index = DatasetIndex(samples=tuple(samples), class_names=names, name="hmdb_simp", root=root)
    return replace(index, note="the study's own copy, read from its split files")


def _split_file(root: Path, split: str) -> Path | None:
    return next((root / name for name in _SPLIT_FILES[split] if (root / name).is_file()), None)


def _find_video(root: Path, label: str, video_name: str) -> Path:
    bases = [
        root / folder for folder in ("HMDB_simp", "frames", "videos") if (root / folder).is_dir()
    ] or [root]
    candidates = [
        base / label / f"{video_name}{suffix}" for base in bases for suffix in ("", ".avi", ".mp4")
    ]
    return next((path for path in candidates if path.exists()), candidates[0])
