"""What `marey teach` accepts: labelled videos, checked before an hour is spent on them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from marey.datasets.index import DatasetIndex, Sample, subset
from marey.datasets.open import open_dataset
from marey.datasets.split import group_names, labelled
from marey.errors import UserError

MIN_EXAMPLES = 2
"""Videos of a class: one to learn from and one to be tested on."""


@dataclass(kw_only=True)
class TeachingData:
    """Videos to learn from."""

    index: DatasetIndex
    groups: list[str]
    """Group of each video; a video without one is a group of its own."""
    grouped: bool
    """Whether the data names groups."""
    notes: list[str] = field(default_factory=list)
    """What the user should know, one sentence each."""

    @property
    def labels(self) -> list[str]:
        """Class name of each video."""
        return [str(sample.label) for sample in self.index.samples]

    @property
    def class_names(self) -> list[str]:
        """Sorted."""
        return sorted(set(self.labels))


def open_teaching_data(
    data: str | Path,
    *,
    dataset: str | None = None,
    group: str | None = None,
    shots: int | None = None,
    seed: int = 0,
) -> TeachingData:
    """Open labelled videos and refuse what cannot be learned from.

    Args:
        data: as `open_dataset` takes it; splits are put together.
        dataset: name of an official layout.
        group: column of the manifest, or regular expression with one group searched in each path,
            whose videos are never cut; "none": every video is its own; None: the groups that the
            data or its file names tell.
        shots: use this many videos of each class, drawn at random; None uses all.

    Raises:
        UserError: if there are fewer than two classes, a class with one video, labels that differ
            only in case or spaces, one video under two labels, or one group only.
    """
    index = labelled(open_dataset(data, dataset=dataset))
    _check_names(index)
    counts = Counter(str(sample.label) for sample in index.samples)
    if len(counts) < 2:
        raise UserError(
            f"{index.root}: all {len(index)} videos have the label '{next(iter(counts))}'; a "
            "recogniser needs two classes or more, such as a second folder of other actions"
        )
    lonely = sorted(name for name, count in counts.items() if count < MIN_EXAMPLES)
    if lonely:
        raise UserError(
            f"{index.root}: one video only of {', '.join(repr(name) for name in lonely)}; add "
            "at least one more of each (five or more is better), or take the class out"
        )

    same = _same_bytes(index)
    notes = []
    if same:
        notes.append(
            f"{sum(map(len, same))} videos are copies of one another byte by byte (the first: "
            f"{index.relative_path(index.samples[same[0][0]])}); copies stay in one fold"
        )
    groups = group_names(index, group)
    grouped = None not in groups
    if group is None and index.note:
        notes.append(f"{index.note}; otherwise: --group")
    if not grouped:
        notes.append(
            "no groups are named, so every video counts as its own; if several show one person or "
            "place, the accuracy is too high: say which belong together with a column 'group' of "
            "a manifest.csv, or with --group and a regular expression, such as '(person[0-9]+)'"
        )
    named = [group or f"video {number}" for number, group in enumerate(groups)]
    if len(set(named)) < 2:
        raise UserError(
            f"{index.root}: all {len(index)} videos are of one group, '{named[0]}', so nothing is "
            "left to test on; name two or more with --group, or take --group none (too kind a "
            "measure)"
        )
    alone = classes_of_one_group(index, named)
    if alone:
        notes.append(
            f"all videos of {', '.join(repr(name) for name in alone)} are of one group each: a "
            "fold that tests such a class has not learned it, so it counts as wrong; record it "
            "with a second person or in a second place, or take --group none (too kind a measure)"
        )
    for copies in same:
        for position in copies[1:]:
            named[position] = named[copies[0]]

    found = TeachingData(index=index, groups=named, grouped=grouped, notes=notes)
    return found if shots is None else few_shots(found, shots, seed)


def classes_of_one_group(index: DatasetIndex, groups: list[str]) -> list[str]:
    """Return the classes whose videos are all of one group, sorted."""
    of_class: dict[str, set[str]] = defaultdict(set)
    for sample, group in zip(index.samples, groups, strict=True):
        of_class[str(sample.label)].add(group)
    return sorted(name for name, found in of_class.items() if len(found) == 1)


def kept(data: TeachingData, positions: list[int]) -> TeachingData:
    """Return some of the videos.

    Raises:
        UserError: if a class has too few of them.
    """
    chosen = replace(
        data,
        index=subset(data.index, positions),
        groups=[data.groups[position] for position in positions],
    )
    counts = Counter(chosen.labels)
    for name in data.class_names:
        if counts[name] < MIN_EXAMPLES:
            raise UserError(
                f"{data.index.root}: {counts[name]} readable videos of '{name}'; at least "
                f"{MIN_EXAMPLES} are needed, see 'marey data check {data.index.root}'"
            )
    return chosen


def few_shots(data: TeachingData, shots: int, seed: int) -> TeachingData:
    """Return `shots` videos of each class, drawn at random.

    Raises:
        UserError: if a class has fewer, or one is asked for.
    """
    counts = Counter(data.labels)
    fewest = min(counts, key=lambda name: counts[name])
    if not MIN_EXAMPLES <= shots <= counts[fewest]:
        raise UserError(
            f"--shots {shots}: from {MIN_EXAMPLES} to {counts[fewest]}, the number of videos of "
            f"'{fewest}'"
        )
    order = torch.randperm(len(data.index), generator=torch.Generator().manual_seed(seed))
    taken: Counter[str] = Counter()
    positions = []
    for position in order.tolist():
        label = data.labels[position]
        if taken[label] < shots:
            taken[label] += 1
            positions.append(position)
    return kept(data, sorted(positions))


def _check_names(index: DatasetIndex) -> None:
    spelled: dict[str, set[str]] = defaultdict(set)
    for sample in index.samples:
        label = str(sample.label)
        spelled[" ".join(label.replace("_", " ").casefold().split())].add(label)
    for names in spelled.values():
        if len(names) > 1:
            alike = ", ".join(f"'{name}'" for name in sorted(names))
            raise UserError(
                f"{index.root}: labels that differ only in case or spaces: {alike}; rename the "
                "folders or correct the manifest so that one class has one name"
            )


def _same_bytes(index: DatasetIndex) -> list[list[int]]:
    """Return the positions of videos that are equal byte by byte.

    Raises:
        UserError: if equal videos have two labels.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for position, sample in enumerate(index.samples):
        if sample.path.is_file() and _whole(sample):
            by_size[sample.path.stat().st_size].append(position)
    by_bytes: dict[bytes, list[int]] = defaultdict(list)
    for positions in by_size.values():
        if len(positions) > 1:
            for position in positions:
                data = index.samples[position].path.read_bytes()
                by_bytes[hashlib.sha256(data).digest()].append(position)
    same = [positions for positions in by_bytes.values() if len(positions) > 1]
    for positions in same:
        first = index.samples[positions[0]]
        for position in positions[1:]:
            other = index.samples[position]
            if other.label != first.label:
                raise UserError(
                    f"{index.relative_path(first)} and {index.relative_path(other)} are the same "
                    f"video under the labels '{first.label}' and '{other.label}'; keep the right "
                    "one and delete the other"
                )
    return same


def _whole(sample: Sample) -> bool:
    return (sample.row, sample.start_seconds, sample.end_seconds) == (None, None, None)
