"""Labels told by file names: which names are read, and which are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from marey.datasets.named_files import labels_of_names, read_named_files
from marey.datasets.open import open_dataset
from marey.errors import UserError

PEOPLE = ("daria", "denis", "eli", "ido", "lena")
ACTIONS = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")


def fill(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_people_and_actions_in_one_folder(tmp_path: Path):
    names = [f"{person}_{action}.avi" for person in PEOPLE for action in ACTIONS]
    names = [name for name in names if name != "lena_run.avi"] + ["lena_run1.avi", "lena_run2.avi"]
    index = open_dataset(fill(tmp_path, names))
    assert index.class_names == tuple(sorted(ACTIONS))
    assert {sample.group for sample in index.samples} == set(PEOPLE)
    assert sum(sample.label == "run" for sample in index.samples) == 6
    assert "read from file names, such as 'bend' of daria_bend.avi" in index.note
    assert "groups: 5 names" in index.note


@pytest.mark.parametrize(
    ("names", "labels", "groups"),
    [
        (
            [f"{a.title()}{p.title()}.mp4" for a in ("kick", "wave") for p in PEOPLE],
            {"kick", "wave"},
            set(PEOPLE),
        ),
        (
            [
                f"person0{p}_{a}_d{d}_uncomp.avi"
                for a in ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
                for p in (1, 2, 3)
                for d in (1, 2)
            ],
            {"boxing", "handclapping", "handwaving", "jogging", "running", "walking"},
            {"person01", "person02", "person03"},
        ),
        (
            [f"walk_{number:03d}.mp4" for number in range(4)]
            + [f"run_{number:03d}.mp4" for number in range(4)],
            {"walk", "run"},
            {None},
        ),
        (
            [f"{person}/{action}.avi" for person in PEOPLE for action in ("bend", "run", "walk")],
            {"bend", "run", "walk"},
            set(PEOPLE),
        ),
    ],
)
def test_names_that_tell_actions(tmp_path: Path, names, labels, groups):
    index = open_dataset(fill(tmp_path, names))
    assert set(index.class_names) == labels
    assert {sample.group for sample in index.samples} == groups


@pytest.mark.parametrize(
    "names",
    [
        [f"{action}/{person}.avi" for person in PEOPLE for action in ("bend", "run")],
        [f"{action}/{person}_walk.avi" for person in PEOPLE for action in ("knit", "jump")],
        [f"{kind}/{action}.avi" for kind in ("day", "night") for action in ("walk", "run")],
        ["normal/walk.avi", "normal/run.avi", "odd/kick.avi", "odd/hit.avi", "other/jump.avi"],
    ],
)
def test_class_folders_stay_classes(tmp_path: Path, names):
    index = open_dataset(fill(tmp_path, names))
    assert set(index.class_names) == {name.split("/")[0] for name in names}


@pytest.mark.parametrize(
    "stems",
    [
        ["holiday_1", "holiday_2", "birthday_1"],
        ["walk", "DSC0001", "IMG_2", "party"],
        ["1", "2"],
    ],
)
def test_names_that_tell_nothing(stems):
    assert labels_of_names(stems) is None


def test_a_flat_folder_that_tells_nothing_is_refused_with_the_remedy(tmp_path: Path):
    assert read_named_files(fill(tmp_path, ["a.mp4", "b.mp4"])) is None
    with pytest.raises(UserError, match="arrange them so"):
        open_dataset(tmp_path)
