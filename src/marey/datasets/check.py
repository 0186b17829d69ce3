"""Checking a data set before training: missing, unreadable, duplicate and mislabelled entries are
named."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from marey.datasets.fingerprint import fingerprint, near_duplicates
from marey.datasets.index import DatasetIndex, Sample
from marey.errors import VideoError
from marey.files import write_csv
from marey.video.decode import open_video

ERRORS = ("missing", "unreadable", "mislabelled", "conflict", "leak", "one_class")
"""Kinds that make a training or its measured accuracy wrong; the others are worth knowing."""
MEANING = {
    "missing": "named, but not there",
    "unreadable": "there, but no video",
    "mislabelled": "the file's own name says another class",
    "conflict": "the same video under two labels",
    "leak": "the same video, or one group, in two splits",
    "one_class": "fewer than two classes",
    "duplicate": "the same bytes twice",
    "near_duplicate": "the same pictures twice",
    "damaged": "readable in part",
    "still": "one picture, nothing moves",
    "empty_class": "a class without a video",
    "unseen_class": "a class of val or test without a training video",
    "unlabelled": "no label",
}
"""Kind of finding -> what it means."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """A key of MEANING."""
    paths: tuple[str, ...]
    """The entries concerned, as the data set names them."""
    message: str
    """One line: what, and what to do."""

    @property
    def is_error(self) -> bool:
        """Whether it makes a training or its measured accuracy wrong."""
        return self.kind in ERRORS


@dataclass(frozen=True)
class Report:
    """What `check_dataset` found."""

    index: DatasetIndex
    findings: list[Finding] = field(default_factory=list)
    num_readable: int = 0
    seconds: tuple[float, float, float] | None = None
    """Shortest, median and longest duration; None where no video could be read."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that make a training or its measured accuracy wrong."""
        return [finding for finding in self.findings if finding.is_error]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        index = self.index
        return {
            "data": str(index.root),
            "layout": index.name,
            "num_videos": len(index),
            "readable": self.num_readable,
            "seconds": self.seconds,
            "classes": index.class_counts,
            "note": index.note,
            "splits": {name: len(index.split(name)) for name in index.splits},
            "counts": dict(Counter(finding.kind for finding in self.findings)),
            "errors": len(self.errors),
            "findings": [
                {"kind": f.kind, "paths": list(f.paths), "message": f.message}
                for f in self.findings
            ],
        }


@dataclass(frozen=True)
class _Look:
    """The result of opening one entry."""

    error: str | None = None
    damaged: str | None = None
    digest: str | None = None
    print_: np.ndarray | None = None
    num_frames: int | None = None
    seconds: float | None = None


def check_dataset(
    index: DatasetIndex,
    *,
    decode_all: bool = False,
    pictures: bool = True,
    workers: int | None = None,
    progress: Callable[[Iterator[Any], int], Iterator[Any]] | None = None,
) -> Report:
    """Look at every entry of a data set.

    Args:
        index: the data set.
        decode_all: decode every frame instead of three, which finds damage in the middle and takes
            much longer.
        pictures: look for near-duplicates by fingerprints.
        workers: threads; None takes one per core.
        progress: wraps the iterator of results to show how far it is:
            (iterator, total) -> iterator.
    """
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        results: Iterator[Any] = pool.map(
            lambda sample: _look(sample, decode_all, pictures), index.samples
        )
        looks = list(progress(results, len(index)) if progress else results)
    findings = [
        finding
        for sample, look in zip(index.samples, looks, strict=True)
        for finding in _about_one(index, sample, look)
    ]
    findings += _same_bytes(index, looks)
    findings += _same_pictures(index, looks)
    findings += _about_splits(index)
    findings += [
        Finding("empty_class", (), f"class '{name}' has no video; add some, or remove its folder")
        for name, count in index.class_counts.items()
        if not count
    ]
    readable = sum(look.error is None for look in looks)
    seconds = sorted(look.seconds for look in looks if look.seconds is not None)
    durations = (seconds[0], seconds[len(seconds) // 2], seconds[-1]) if seconds else None
    return Report(index=index, findings=findings, num_readable=readable, seconds=durations)


def _look(sample: Sample, decode_all: bool, pictures: bool) -> _Look:
    if sample.row is not None:
        return _Look()
    if not sample.path.exists():
        return _Look(error="missing")
    try:
        with open_video(sample.path, threads=1) as reader:
            if decode_all:
                for _ in reader.iterate():
                    pass
            first, _ = reader.frame_range(sample.start_seconds, sample.end_seconds)
            print_ = (
                fingerprint(reader, sample.start_seconds, sample.end_seconds) if pictures else None
            )
            if not pictures:
                reader.frames_at([first])
            return _Look(
                damaged=reader.damaged,
                digest=_digest(sample),
                print_=print_,
                num_frames=reader.num_frames,
                seconds=reader.duration_seconds,
            )
    except (VideoError, OSError) as error:
        return _Look(error=str(error))


def _digest(sample: Sample) -> str:
    digest = hashlib.sha256(repr((sample.start_seconds, sample.end_seconds)).encode())
    files = sorted(sample.path.iterdir()) if sample.path.is_dir() else [sample.path]
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _about_one(index: DatasetIndex, sample: Sample, look: _Look) -> Iterator[Finding]:
    name = index.relative_path(sample)
    if look.error == "missing":
        yield Finding("missing", (name,), f"{name}: is not there; restore it or take its row out")
    elif look.error is not None:
        yield Finding("unreadable", (name,), look.error)
    if look.num_frames == 1 or (look.print_ is not None and _is_still(look.print_)):
        frames = "one frame" if look.num_frames == 1 else "three times the same picture"
        yield Finding("still", (name,), f"{name}: {frames}; nothing moves, so it shows no action")
    if look.damaged:
        yield Finding("damaged", (name,), f"{name}: {look.damaged}; copy or download it again")
    if sample.label is None:
        yield Finding(
            "unlabelled",
            (name,),
            f"{name}: has no label, it can be predicted but not trained on or scored",
        )
        return
    told = class_in_name(sample.path.stem, index.class_names)
    if told is not None and told != sample.label:
        yield Finding(
            "mislabelled",
            (name,),
            f"{name}: labelled '{sample.label}', but its name says '{told}'; move it or rename it",
        )


def _is_still(print_: np.ndarray) -> bool:
    """Whether the three thumbnails of a video, in grey levels, are one picture."""
    return bool(np.abs(print_ - print_[:1]).max() < 2.0)


def class_in_name(stem: str, class_names: tuple[str, ...]) -> str | None:
    """Return the class that a UCF101 or HMDB51 file name states, or None where it states none of
    `class_names`.

    UCF101: v_<Class>_gGG_cCC. HMDB51:
    <source>_<class>_<body>_<camera>_<people>_<view>_<quality>_<number>, where source and class may
    contain underscores, so the longest class name that fits is taken. Compared without case.
    """
    known = {name.lower().replace(" ", "_"): name for name in class_names}
    ucf = re.fullmatch(r"v_(.+)_g\d+_c\d+", stem)
    if ucf:
        return known.get(ucf.group(1).lower())
    hmdb = re.fullmatch(r"(.+)_[hufl]_(?:nm|cm)_np\d_(?:fr|ba|le|ri)_(?:goo|med|bad)_\d+", stem)
    if hmdb:
        fitting = [key for key in known if hmdb.group(1).lower().endswith("_" + key)]
        return known[max(fitting, key=len)] if fitting else None
    return None


def _same_bytes(index: DatasetIndex, looks: list[_Look]) -> Iterator[Finding]:
    groups = defaultdict(list)
    for position, look in enumerate(looks):
        if look.digest is not None:
            groups[look.digest].append(position)
    for positions in groups.values():
        if len(positions) > 1:
            yield _same(index, positions, "duplicate", "hold the same bytes")


def _same_pictures(index: DatasetIndex, looks: list[_Look]) -> Iterator[Finding]:
    for i, j in near_duplicates([look.print_ for look in looks]):
        if looks[i].digest != looks[j].digest:
            yield _same(index, [i, j], "near_duplicate", "show the same pictures")


def _same(index: DatasetIndex, positions: list[int], kind: str, what: str) -> Finding:
    samples = [index.samples[position] for position in positions]
    names = tuple(index.relative_path(sample) for sample in samples)
    listed = ", ".join(names)
    if len({sample.label for sample in samples}) > 1:
        labels = ", ".join(sorted({str(sample.label) for sample in samples}))
        return Finding(
            "conflict",
            names,
            f"{listed}: {what} under different labels ({labels}); keep the right one",
        )
    splits = sorted({str(sample.split) for sample in samples})
    if len(splits) > 1:
        return Finding(
            "leak",
            names,
            f"{listed}: {what} in different splits ({', '.join(splits)}); keep one of them",
        )
    return Finding(kind, names, f"{listed}: {what}; keep one of them")


def _about_splits(index: DatasetIndex) -> Iterator[Finding]:
    if len(index.class_names) < 2:
        one = ", ".join(index.class_names) or "none"
        yield Finding(
            "one_class",
            (),
            f"{index.root}: has {len(index.class_names)} class ({one}); a recogniser needs "
            "at least two, one folder each",
        )
    groups = defaultdict(set)
    for sample in index.samples:
        if sample.group is not None and sample.split is not None:
            groups[sample.group].add(sample.split)
    for group, splits in sorted(groups.items()):
        if len(splits) > 1:
            yield Finding(
                "leak",
                (),
                f"group '{group}' is in {', '.join(sorted(splits))}; make the splits again with "
                "'marey data split --group group'",
            )
    trained = {sample.label for sample in index.samples if sample.split == "train"}
    if trained:
        for name in sorted(
            {s.label for s in index.samples if s.split in ("val", "test") and s.label} - trained
        ):
            yield Finding(
                "unseen_class",
                (),
                f"class '{name}' is in val or test and never in train; it cannot be learned",
            )


def write_findings(report: Report, path: Path) -> None:
    """Write the findings as CSV: kind, path, message; one row per entry concerned."""
    rows = [
        [finding.kind, name, finding.message]
        for finding in report.findings
        for name in finding.paths or ("",)
    ]
    write_csv(path, [["kind", "path", "message"], *rows])
