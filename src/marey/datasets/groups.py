"""Groups told by file names: the person in `bend/daria_bend.avi`, the source of
`v_Archery_g01_c02.avi`.

Videos of one person, place or source look alike. A score is honest only where they stay on one
side of every split, so data that names no groups is searched for the names that data sets use.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from marey.datasets.hmdb51 import TAGS, source_film
from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.named_files import spaced

MIN_NAMES = 3
"""Fewer words cannot be told from words that names share by chance; "person1" and "person2" can."""

_START = r"(?:^|(?<=[^a-z0-9]))"
_UCF = re.compile(r"v_.+_(g\d+)_c\d+")
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("person", r"^s\d{3}c\d{3}(p\d{3})r\d{3}a\d{3}"),  # NTU RGB+D
    ("person", _START + r"a\d+[_-](s\d+)[_-][etr]\d+"),  # MSR Action 3D, UTD-MHAD
    ("person", _START + r"((?:person|subject|subj|sub|actor|participant|user)[ _-]?\d+)"),  # KTH
    ("sequence", _START + r"(set\d+[_-]seq\d+)"),  # UT-Interaction
    ("source", _START + r"((?:video|vid|movie|film)[ _-]?\d+)(?=.*(?:clip|part|seg|shot|cut))"),
    ("place", _START + r"((?:scene|place|room|location|site)[ _-]?\d+)"),
    ("group", _START + r"([ps]\d{1,3})(?=[^a-z0-9])"),
)
_CAMERA = ("camera", _START + r"((?:cam|camera)[ _-]?\d+)")
"""(what a group is, regular expression searched in a lower-case file name without suffix)."""

_NO_NAME = re.compile(
    "a[nt]|and|the|of|to|in|on|with|back|front|side|left|right|top|bottom|up|down|slow|fast|day|"
    "night|morning|evening|indoor|outdoor|inside|outside|hd|sd|low|high|small|big|near|far|new|old|"
    "train|training|val|valid|validation|test|testing|video|vid|clip|movie|film|take|img|image|"
    "mov|pxl|mvi|dsc|final|copy|edit|screen|recording|uncomp|rgb|depth|ir|gr[ae]y|colou?r|raw|"
    "good|bad|normal"
)
"""Words that names of several classes share and that are no person or place."""


def with_groups_of_names(index: DatasetIndex) -> DatasetIndex:
    """Give samples the groups that their file names tell, and say so in the index's note.

    Stretches of one video are a group where names tell nothing. Data in which any sample has a
    group, and the frames of packed folders, are returned unchanged.
    """
    samples = index.samples
    if any(sample.group is not None or sample.row is not None for sample in samples):
        return index
    kind, groups = find_groups(samples) or ("", [])
    how = f"read from file names, such as '{groups[0]}' of {samples[0].path.name}" if groups else ""
    videos = [index.relative_path(sample) for sample in samples]
    if not groups and 1 < len(set(videos)) < len(videos):
        kind, groups, how = "video", videos, "stretches of one video are one group"
    if not groups:
        return index
    names = sorted(set(groups))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    note = f"groups: {len(names)} {kind}s ({shown}), {how}; no group is cut"
    return replace(
        index,
        samples=tuple(
            replace(sample, group=group) for sample, group in zip(samples, groups, strict=True)
        ),
        note="; ".join(part for part in (index.note, note) if part),
    )


def find_groups(samples: Sequence[Sample]) -> tuple[str, list[str]] | None:
    """Return what the groups are and the group of each sample, or None where names tell none.

    First come the names of known data sets (UCF101, HMDB51, NTU, KTH, UT-Interaction) and words
    such as "scene" with a number. Else a word at the same place of every name that several classes
    share is taken for a person or place: "daria" in `bend/daria_bend` and `walk/daria_walk`. A
    plain number tells nothing, for it may count the videos.

    There must be fewer groups than videos, and two or more in every class (three words).
    """
    if any(sample.label is None for sample in samples):
        return None
    stems = [sample.path.stem for sample in samples]
    labels = [str(sample.label) for sample in samples]
    for kind, groups in _readings(stems, labels):
        known = [group for group in groups if group]
        fewest = MIN_NAMES if kind in ("name", "camera") else 2
        if len(known) == len(samples) and _can_be_held_out(known, labels, fewest):
            return kind, known
    return None


def _readings(stems: list[str], labels: list[str]) -> Iterator[tuple[str, list[str | None]]]:
    """Yield (what the groups are, group of each video) by each way to read names, the surest
    first."""
    parted, stems = [spaced(stem).lower() for stem in stems], [stem.lower() for stem in stems]
    pairs = list(zip(stems, labels, strict=True))
    clips = [_UCF.fullmatch(stem) for stem in stems]
    yield (
        "source",
        [
            f"{label}_{match.group(1)}" if match else None
            for match, label in zip(clips, labels, strict=True)
        ],
    )
    yield (
        "source",
        [source_film(stem, label.lower()) if TAGS.search(stem) else None for stem, label in pairs],
    )
    for kind, pattern in _PATTERNS:
        yield kind, _searched(pattern, stems)

    # A column holds the n-th word of every name, from the left or from the right.
    words = [_words(stem, label) for stem, label in zip(parted, labels, strict=True)]
    places = range(-min(map(len, words)), min(map(len, words)))
    columns = [[name[place] for name in words] for place in places]
    for column in sorted(columns, key=lambda column: -len(set(column))):
        if _shared_by_classes(column, labels):
            yield "name", list(column)
    yield _CAMERA[0], _searched(_CAMERA[1], stems)


def _searched(pattern: str, stems: list[str]) -> list[str | None]:
    matches = [re.search(pattern, stem) for stem in stems]
    return [match.group(1) if match else None for match in matches]


def _words(stem: str, label: str) -> list[str]:
    """Return the words of a name without those of its class and without trailing digits."""
    spelled = "[ _-]?".join(re.escape(part) for part in re.split(r"[ _-]+", label.lower()) if part)
    rest = re.sub(rf"(?<![a-z]){spelled}(?![a-z])", " ", stem)
    found = re.findall(r"(?<![a-z0-9])([a-z]{2,})\d*(?![a-z0-9])", rest)
    return [word for word in found if not _NO_NAME.fullmatch(word)]


def _shared_by_classes(column: list[str], labels: list[str]) -> bool:
    """Return whether nearly every word stands in two classes or more, as a person's name does."""
    classes: dict[str, set[str]] = defaultdict(set)
    for word, label in zip(column, labels, strict=True):
        classes[word].add(label)
    return sum(len(classes[word]) > 1 for word in column) >= 0.9 * len(column)


def _can_be_held_out(groups: list[str], labels: list[str], fewest: int) -> bool:
    of_class: dict[str, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        of_class[label].add(group)
    count = len(set(groups))
    return fewest <= count < len(groups) and min(map(len, of_class.values())) >= 2
