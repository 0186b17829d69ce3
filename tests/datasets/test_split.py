"""Splits: exact shares, whole groups, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset
from marey.datasets.split import (
    check_classes,
    describe_splits,
    hold_out,
    limited,
    make_splits,
)
from marey.errors import UserError


def index_of(counts: dict[str, int], groups: int = 0) -> DatasetIndex:
    """A set with so many samples of each class, in so many groups."""
    samples = tuple(
        Sample(
            path=Path(f"/d/{label}/v_{label}_g{i % groups if groups else i:02d}_c{i}.avi"),
            label=label,
            group=f"g{i % groups:02d}" if groups else None,
        )
        for label, n in counts.items()
        for i in range(n)
    )
    return DatasetIndex(
        samples=samples, class_names=tuple(sorted(counts)), name="folders", root=Path("/d")
    )


def table(index: DatasetIndex) -> Counter:
    """(class, split) -> samples."""
    return Counter((s.label, s.split) for s in index.samples)


def test_the_study_gets_900_225_125():
    index = make_splits(index_of({f"c{k}": 50 for k in range(25)}))
    assert {row["split"]: row["videos"] for row in describe_splits(index)} == {
        "train": 900,
        "val": 225,
        "test": 125,
    }
    assert set(table(index).values()) == {36, 9, 5}


def test_uneven_classes_keep_their_shares_and_totals():
    counts = {"a": 7, "b": 11, "c": 23, "d": 101}
    index = make_splits(index_of(counts), val=0.2, test=0.2)
    for label, n in counts.items():
        assert abs(table(index)[label, "test"] - 0.2 * n) < 1
        assert abs(table(index)[label, "train"] - 0.6 * n) < 1.5
    assert abs(sum(s.split == "test" for s in index.samples) - 0.2 * 142) <= 1


def test_groups_stay_whole_and_shares_come_near():
    index = make_splits(index_of({"a": 100, "b": 60}, groups=20), val=0.2, test=0.2)
    homes: dict[str, set] = {}
    for sample in index.samples:
        homes.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in homes.values())
    for label, n in (("a", 100), ("b", 60)):
        assert table(index)[label, "test"] / n == pytest.approx(0.2, abs=0.06)
        assert table(index)[label, "val"] / n == pytest.approx(0.2, abs=0.06)


def test_a_pattern_reads_groups_from_names():
    index = make_splits(
        index_of({"a": 40, "b": 40}, groups=8), group=r"_(g\d+)_", test=0.25, val=0.25
    )
    assert all(s.group in s.path.name for s in index.samples)
    assert describe_splits(index)[0]["groups"] == 4


def test_the_seed_decides():
    first, again, other = (make_splits(index_of({"a": 30, "b": 30}), seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_column_of_the_manifest_can_be_the_group(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "path,label,camera\n" + "".join(f"v{i}.mp4,{'ab'[i % 2]},cam{i // 4}\n" for i in range(40))
    )
    index = make_splits(open_dataset(tmp_path), group="camera", val=0, test=0.2)
    assert {s.split for s in index.samples} == {"train", "test"}
    assert describe_splits(index)[1] == {
        "split": "test",
        "videos": 8,
        "share": 0.2,
        "classes": 2,
        "fewest": 4,
        "groups": 2,
    }
    with pytest.raises(UserError, match=r"no column 'person' \(it has: path, label, camera\)"):
        make_splits(open_dataset(tmp_path), group="person")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val": 0.6, "test": 0.5}, "together below 1"),
        ({"group": "group"}, "no sample has a group"),
        ({"group": "camera"}, "there is no manifest.csv"),
        ({"group": "(x"}, "not a regular expression"),
        ({"group": "(zzz)"}, "matches no path"),
    ],
)
def test_mistakes_are_named(change, words):
    with pytest.raises(UserError, match=words):
        make_splits(index_of({"a": 4, "b": 4}), **change)


def labelled_index(rows: list[tuple[str, str | None]]) -> DatasetIndex:
    samples = tuple(
        Sample(path=Path(f"v{n}.mp4"), label=label, group=group)
        for n, (label, group) in enumerate(rows)
    )
    return DatasetIndex(
        samples=samples,
        class_names=tuple(sorted({label for label, _ in rows})),
        name="t",
        root=Path("data"),
    )


def test_holding_out_takes_a_share_of_every_class_and_never_cuts_a_group() -> None:
    index = labelled_index([(label, f"{label}{n // 2}") for label in "ab" for n in range(20)])
    train, val = hold_out(index, 0.2, seed=0)
    assert val is not None
    assert Counter(sample.label for sample in val.samples) == {"a": 4, "b": 4}
    assert not {s.group for s in train.samples} & {s.group for s in val.samples}
    assert len(train) + len(val) == 40


def test_groups_that_span_classes_stay_whole() -> None:
    index = labelled_index([(label, f"scene{n}") for label in "abc" for n in range(10)])
    train, val = hold_out(index, 0.2, seed=1)
    assert val is not None
    assert not {s.group for s in train.samples} & {s.group for s in val.samples}
    assert Counter(s.label for s in val.samples) == {"a": 2, "b": 2, "c": 2}


def test_a_single_group_cannot_be_held_out() -> None:
    assert hold_out(labelled_index([("a", "g"), ("b", "g")]), 0.5, seed=0)[1] is None


def test_holding_out_follows_the_seed() -> None:
    index = labelled_index([("a", None)] * 30 + [("b", None)] * 30)
    first, again, other = (hold_out(index, 0.2, seed)[1] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_limit_is_drawn_evenly_over_classes() -> None:
    index = labelled_index([("a", None)] * 50 + [("b", None)] * 5)
    chosen = limited(index, 8, seed=0)
    assert Counter(index.samples[position].label for position in chosen) == {"a": 4, "b": 4}
    assert chosen == sorted(chosen)


def test_one_class_is_an_error() -> None:
    with pytest.raises(
        UserError, match="all 2 training videos have the label 'a'; a classifier needs at least two"
    ):
        check_classes(labelled_index([("a", None), ("a", None)]), None)


def test_labels_absent_from_training_are_named() -> None:
    train, val = (
        labelled_index([("a", None), ("b", None)]),
        labelled_index([("c", None), ("a", None)]),
    )
    with pytest.raises(
        UserError, match="validation has labels absent from training: c; add training videos"
    ):
        check_classes(train, val)
