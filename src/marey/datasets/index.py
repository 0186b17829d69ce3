"""The index of a data set: its videos with their labels, splits and groups.

`open_dataset` accepts `root/<class>/*`, `root/{train,val,test}/<class>/*`, a `manifest.csv`
(or a folder with one), a packed folder, or the official layout of a known data set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from marey.errors import UserError

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4",
        ".avi",
        ".mkv",
        ".webm",
        ".mov",
        ".gif",
        ".mpg",
        ".mpeg",
        ".m4v",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".vob",
        ".dav",
        ".mts",
        ".m2ts",
        ".asf",
        ".divx",
        ".f4v",
        ".3g2",
        ".m2v",
        ".mxf",
        ".h264",
        ".264",
        ".h265",
        ".265",
        ".hevc",
        ".mjpeg",
    }
)
FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "test": "test",
    "testing": "test",
}
"""Folder or column spelling -> the name we use."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled video, or one labelled stretch of a video."""

    path: Path
    """A video file, or a folder of numbered frames."""
    label: str | None
    """Class name; None where the data set gives none (official test sets)."""
    split: str | None = None
    """"train", "val", "test", or None where nothing says."""
    group: str | None = None
    """Samples of one group (a scene, a person, a source video) must stay in one split."""
    start_seconds: float | None = None
    """Start of the stretch, in seconds; None is the start of the video."""
    end_seconds: float | None = None
    """End of the stretch, exclusive, in seconds; None is the end of the video."""
    row: int | None = None
    """Row of the frame array of a packed folder; None for video files."""


@dataclass(frozen=True, kw_only=True)
class DatasetIndex:
    """The samples of a data set, in a fixed order, and the order of its classes."""

    samples: tuple[Sample, ...]
    class_names: tuple[str, ...]
    name: str
    """Layout it was read from: "folders", "manifest", "packed", "ucf101", ..."""
    root: Path
    note: str = ""
    """What the reader had to decide, in one sentence for the user; empty if nothing."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have samples, in the order train, val, test, others."""
        present = {sample.split for sample in self.samples if sample.split is not None}
        known = [name for name in ("train", "val", "test") if name in present]
        return tuple(known + sorted(present - set(known)))

    def split(self, name: str) -> DatasetIndex:
        """Return the samples of one split; class names stay those of the whole set.

        Raises:
            UserError: if the split has no samples.
        """
        wanted = SPLIT_NAMES.get(name, name)
        chosen = tuple(sample for sample in self.samples if sample.split == wanted)
        if not chosen:
            have = ", ".join(self.splits) or "no splits at all"
            raise UserError(
                f"{self.root}: no samples in split '{name}' (it has {have}); make splits with "
                "'marey data split', or say how names tell them with --split-by"
            )
        return replace(self, samples=chosen)

    def label_index(self, sample: Sample) -> int:
        """Return the class number of a sample, or -1 where it has no label."""
        return -1 if sample.label is None else self._numbers[sample.label]

    @property
    def _numbers(self) -> dict[str, int]:
        numbers = self.__dict__.get("_numbers_cache")
        if numbers is None:
            numbers = {name: number for number, name in enumerate(self.class_names)}
            object.__setattr__(self, "_numbers_cache", numbers)
        return numbers

    @property
    def class_counts(self) -> dict[str, int]:
        """Number of samples of each class, every class of the set included."""
        counts = Counter(sample.label for sample in self.samples)
        return {name: counts.get(name, 0) for name in self.class_names}

    def relative_path(self, sample: Sample) -> str:
        """Return the name a report should use: the path below the root where it lies below it."""
        path = (
            sample.path.relative_to(self.root)
            if sample.path.is_relative_to(self.root)
            else sample.path
        )
        return f"{path.as_posix()}#{sample.row}" if sample.row is not None else path.as_posix()

    @property
    def manifest_hash(self) -> str:
        """SHA-256 over every sample's relative path, label, split, group and stretch, in order;
        hexadecimal."""
        digest = hashlib.sha256()
        for sample in self.samples:
            row = [
                self.relative_path(sample),
                sample.label,
                sample.split,
                sample.group,
                sample.start_seconds,
                sample.end_seconds,
            ]
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()


def is_frame_folder(path: Path) -> bool:
    """Return whether a folder holds the frames of one video as images and nothing that is a
    video."""
    if not path.is_dir():
        return False
    try:
        suffixes = {entry.suffix.lower() for entry in path.iterdir() if entry.is_file()}
    except PermissionError:
        return False
    return bool(suffixes & FRAME_SUFFIXES) and not suffixes & VIDEO_SUFFIXES


OUTPUT_FILES = (
    "config.json",
    "model.safetensors",
    "log.jsonl",
    "settings.json",
    "report.json",
    "teach.json",
)
"""Files that only what Marey writes has."""


def is_output(folder: Path) -> bool:
    """Return whether a folder is a run, a model or a report that was written among the data."""
    try:
        return any((folder / name).is_file() for name in OUTPUT_FILES) and not any(
            entry.suffix.lower() in VIDEO_SUFFIXES for entry in folder.iterdir()
        )
    except OSError:
        return False


def videos_below(folder: Path) -> list[Path]:
    """Return the video files and frame folders directly in a folder, sorted by name; none of a
    folder that may not be read."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except PermissionError:
        return []
    return [
        entry
        for entry in entries
        if (entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES) or is_frame_folder(entry)
    ]


def read_folders(root: Path) -> DatasetIndex:
    """Read `root/<class>/*` or `root/{train,val,test}/<class>/*`; class order is sorted by name.

    Raises:
        UserError: if there are no videos in class folders.
    """
    folders = sorted(
        entry
        for entry in root.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and not is_output(entry)
    )
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    beside = [folder for folder in folders if folder not in splits and videos_below(folder)]
    pairs: list[tuple[str | None, Path]]
    if splits and not beside:
        pairs = [
            (SPLIT_NAMES[folder.name.lower()], below)
            for folder in splits
            for below in sorted(folder.iterdir())
            if below.is_dir() and not below.name.startswith(".")
        ]
    else:
        pairs = [(None, folder) for folder in folders]
    samples = tuple(
        Sample(path=video, label=folder.name, split=split)
        for split, folder in pairs
        for video in videos_below(folder)
    )
    if not samples:
        raise UserError(
            f"{root}: no videos found as <class>/<video> or train|val|test/<class>/<video>; "
            f"arrange them so, or write {root / 'manifest.csv'} with the columns path,label"
        )
    return DatasetIndex(
        samples=samples,
        class_names=tuple(sorted({folder.name for _, folder in pairs})),
        name="folders",
        root=root,
    )


def split_by_name(index: DatasetIndex, pattern: str) -> DatasetIndex:
    """Give every sample the split its relative path names; samples that do not match have none.

    Raises:
        UserError: if the pattern is not a regular expression with a group, or matches nothing.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--split-by '{pattern}' is not a regular expression: {error}") from error
    if not expression.groups:
        raise UserError(
            f"--split-by '{pattern}' has no group; write e.g. '(?P<train>set1)|(?P<test>set2)' "
            "or '(train|test)'"
        )
    samples = tuple(
        replace(sample, split=_split_in_name(expression, index.relative_path(sample)))
        for sample in index.samples
    )
    if all(sample.split is None for sample in samples):
        raise UserError(
            f"--split-by '{pattern}' matches no path of {index.root}; "
            f"the first path is '{index.relative_path(index.samples[0])}'"
        )
    return replace(index, samples=samples)


def _split_in_name(expression: re.Pattern[str], name: str) -> str | None:
    match = expression.search(name)
    if match is None:
        return None
    named = [key for key, text in match.groupdict().items() if text is not None]
    found = named[0] if named else match.group(1)
    return SPLIT_NAMES.get((found or "").lower(), found)


def subset(index: DatasetIndex, keep: Iterable[int]) -> DatasetIndex:
    """Return the samples at the given positions, in the given order."""
    return replace(index, samples=tuple(index.samples[position] for position in keep))
