"""Making splits that keep every class's share and never divide a group, and choosing samples for
training."""

from __future__ import annotations

import csv
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from marey.datasets.index import DatasetIndex, Sample, subset
from marey.errors import UserError, unknown_name


def make_splits(
    index: DatasetIndex,
    *,
    val: float = 0.18,
    test: float = 0.1,
    group: str | None = None,
    seed: int = 42,
) -> DatasetIndex:
    """Give every sample a split; same samples and seed, same splits.

    Without groups each class is divided exactly: 25 x 50 videos at 0.18 and 0.1 become
    900 / 225 / 125. With groups the largest groups are placed first, each where its classes miss
    most, so shares are as near as whole groups allow.

    Args:
        index: the data set; splits it has are replaced.
        val, test: shares of all samples, in [0, 1), together below 1.
        group: what must stay together: a column of the manifest, or a regular expression with one
            group that is searched in each relative path ("(g[0-9]+)"); "none" groups nothing;
            None takes the samples' own groups where they have them.
        seed: of the random order.

    Raises:
        UserError: if the shares make no sense, or `group` fits nothing.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise UserError(
            f"val and test are shares in [0, 1), together below 1, got {val} and {test}"
        )
    names = group_names(index, group)
    order = list(range(len(index)))
    random.Random(seed).shuffle(order)
    shares = {"train": 1 - val - test, "val": val, "test": test}
    together: dict[str, list[int]] = defaultdict(list)
    for position in order:
        together[names[position] or f"\0{position}"].append(position)  # \0: a group of one
    grouped = any(len(positions) > 1 for positions in together.values())
    chosen = (
        _place_groups(index, together, shares) if grouped else _place_samples(index, order, shares)
    )
    samples = tuple(
        replace(sample, split=chosen[position], group=names[position] if group else sample.group)
        for position, sample in enumerate(index.samples)
    )
    return replace(index, samples=samples)


def group_names(index: DatasetIndex, group: str | None) -> list[str | None]:
    """Return each sample's group under `group`, as `make_splits` takes it."""
    if group == "none":
        return [None] * len(index)
    if group is None or group == "group":
        found = [sample.group for sample in index.samples]
        if group and not any(found):
            raise UserError(
                f"{index.root}: no sample has a group; write a 'group' column into the manifest, "
                "or give --group a regular expression with one group, such as '(g[0-9]+)'"
            )
        return found
    manifest = index.root / "manifest.csv"
    if re.fullmatch(r"\w+", group):
        if not manifest.is_file():
            raise UserError(
                f"{index.root}: --group '{group}' names a column, but there is no manifest.csv; "
                "give a regular expression with one group, such as '(g[0-9]+)'"
            )
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        if not rows or group not in rows[0]:
            columns = ", ".join(rows[0]) if rows else "none"
            raise UserError(
                f"{manifest}: no column '{group}' (it has: {columns}); name one of them"
            )
        return [row[group] or None for row in rows]
    try:
        expression = re.compile(group)
    except re.error as error:
        raise UserError(f"--group '{group}' is not a regular expression: {error}") from error
    matches = [expression.search(index.relative_path(sample)) for sample in index.samples]
    if not expression.groups or not any(matches):
        raise UserError(
            f"--group '{group}' matches no path, or has no group in brackets; the first path is "
            f"'{index.relative_path(index.samples[0])}'"
        )
    return [match.group(1) if match else None for match in matches]


def _place_samples(
    index: DatasetIndex, order: list[int], shares: dict[str, float]
) -> dict[int, str]:
    """Divide every class by largest remainders, so that the totals come out as well."""
    by_class: dict[str | None, list[int]] = defaultdict(list)
    for position in order:
        by_class[index.samples[position].label].append(position)
    owed = dict.fromkeys(shares, 0.0)  # carried from class to class
    chosen: dict[int, str] = {}
    for label in sorted(by_class, key=str):
        positions = by_class[label]
        exact = {name: share * len(positions) for name, share in shares.items()}
        counts = {name: int(value + 1e-9) for name, value in exact.items()}

        # What rounding down left over goes where most is missing, earlier classes included.
        left = len(positions) - sum(counts.values())
        rest = {name: exact[name] - counts[name] + owed[name] for name in shares}
        for name in sorted(rest, key=lambda name: -rest[name])[:left]:
            counts[name] += 1
        for name in shares:
            owed[name] += exact[name] - counts[name]

        names = [name for name in shares for _ in range(counts[name])]
        chosen.update(zip(positions, names, strict=True))
    return chosen


def _place_groups(
    index: DatasetIndex, together: dict[str, list[int]], shares: dict[str, float]
) -> dict[int, str]:
    """Place whole groups, largest first, each where it misses most."""
    totals = Counter(sample.label for sample in index.samples)
    chosen: dict[int, str] = {}
    missing = {
        name: {label: share * count for label, count in totals.items()}
        for name, share in shares.items()
    }
    wanted = [name for name, share in shares.items() if share > 0]
    for positions in sorted(together.values(), key=len, reverse=True):
        classes = Counter(index.samples[position].label for position in positions)

        def gain(name: str, classes: Counter = classes) -> float:
            """How much nearer its shares the split comes; large groups go where much is missing:
            tests stay varied."""
            gaps = (
                (missing[name][label], missing[name][label] - n, shares[name] * totals[label])
                for label, n in classes.items()
            )
            return sum((before**2 - after**2) / share for before, after, share in gaps)

        best = max(wanted, key=gain)
        for label, n in classes.items():
            missing[best][label] -= n
        chosen.update(dict.fromkeys(positions, best))
    return chosen


def describe_splits(index: DatasetIndex) -> list[dict[str, object]]:
    """One row per split: videos, share of all, classes, fewest videos of a class, groups."""
    rows: list[dict[str, object]] = []
    for name in index.splits:
        samples: tuple[Sample, ...] = index.split(name).samples
        counts = Counter(sample.label for sample in samples)
        rows.append(
            {
                "split": name,
                "videos": len(samples),
                "share": round(len(samples) / len(index), 4),
                "classes": len(counts),
                "fewest": min(counts.get(label, 0) for label in index.class_names),
                "groups": len({sample.group for sample in samples if sample.group is not None}),
            }
        )
    return rows


def without_classes(index: DatasetIndex, names: Sequence[str]) -> DatasetIndex:
    """Leave out all samples of some classes and their names: `data.unseen_classes` of
    label-embedding runs.

    Raises:
        UserError: if the data has no such class.
    """
    for name in names:
        if name not in index.class_names:
            raise unknown_name("class in data.unseen_classes", name, index.class_names)
    kept = subset(
        index,
        [position for position, sample in enumerate(index.samples) if sample.label not in names],
    )
    return replace(kept, class_names=tuple(name for name in index.class_names if name not in names))


def split_for_training(
    index: DatasetIndex, *, val_fraction: float, limit: int | None, seed: int
) -> tuple[DatasetIndex, DatasetIndex | None]:
    """Return the training and the validation samples.

    Validation is the split "val" where there is one, else whole groups held out of "train", class
    by class; the split "test" is never touched. Data without splits is all training data.

    Args:
        index: all samples.
        val_fraction: share of the training samples that is held out, in [0, 1].
        limit: most training samples, drawn per class; None takes all.
        seed: of what is held out and drawn.

    Raises:
        UserError: if there is a single class, no sample has a label, or validation has a label
            absent from training.
    """
    train = labelled(index.split("train") if index.splits else index)
    val = labelled(index.split("val")) if "val" in index.splits else None
    if val is None and val_fraction > 0:
        train, val = hold_out(train, val_fraction, seed)
    if limit is not None and limit < len(train):
        train = subset(train, limited(train, limit, seed))
    check_classes(train, val)
    return train, val


def labelled(index: DatasetIndex) -> DatasetIndex:
    """Return the samples that have a label; official test sets have none."""
    found = subset(
        index,
        [position for position, sample in enumerate(index.samples) if sample.label is not None],
    )
    if not found.samples:
        raise UserError(
            f"{index.root}: none of its {len(index)} videos has a label; training needs labels"
        )
    return found


def check_classes(train: DatasetIndex, val: DatasetIndex | None) -> None:
    """Raise a UserError where the labels cannot be learned: fewer than two classes, or labels only
    in validation."""
    trained = {sample.label for sample in train.samples}
    if len(trained) < 2:
        raise UserError(
            f"{train.root}: all {len(train)} training videos have the label "
            f"'{next(iter(trained))}'; a classifier needs at least two classes, one folder each"
        )
    absent = (
        sorted({str(sample.label) for sample in val.samples} - {str(name) for name in trained})
        if val
        else []
    )
    if absent:
        raise UserError(
            f"{train.root}: validation has labels absent from training: {', '.join(absent)}; "
            "add training videos of them, or make new splits with 'marey data split'"
        )


def hold_out(
    index: DatasetIndex, fraction: float, seed: int
) -> tuple[DatasetIndex, DatasetIndex | None]:
    """Split samples in two, per class, never cutting a group; the second part is at most `fraction`
    of each class.

    A class with a single group stays in training. Returns None for the second part where nothing
    can be held out.
    """
    sizes = Counter(sample.label for sample in index.samples)
    groups: dict[str, list[int]] = defaultdict(list)
    for position, sample in enumerate(index.samples):
        groups[sample.group or f"sample {position}"].append(position)
    names = sorted(groups)
    room = {label: max(1, round(fraction * size)) for label, size in sizes.items()}
    left = dict(sizes)
    held: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(names)):
        positions = groups[names[number]]
        wanted = Counter(index.samples[position].label for position in positions)
        if all(count <= room[label] and count < left[label] for label, count in wanted.items()):
            held += positions
            for label, count in wanted.items():
                room[label] -= count
                left[label] -= count
    if not held:
        return index, None
    chosen = set(held)
    kept = [position for position in range(len(index)) if position not in chosen]
    return subset(index, kept), subset(index, sorted(held))


def limited(index: DatasetIndex, limit: int, seed: int) -> list[int]:
    """Return the positions of `limit` samples, drawn round by round one per class, in index
    order."""
    by_class: dict[str, list[int]] = defaultdict(list)
    for position in np.random.default_rng(seed).permutation(len(index)):
        by_class[str(index.samples[position].label)].append(int(position))
    rounds = [
        positions[turn]
        for turn in range(len(index))
        for _, positions in sorted(by_class.items())
        if turn < len(positions)
    ]
    return sorted(rounds[:limit])
