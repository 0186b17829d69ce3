"""Splits: exact shares, whole groups, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset
from marey.datasets.split import describe_splits, make_splits
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
