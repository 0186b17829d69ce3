"""Groups that file names tell: what is read from which names, and what is left alone."""

from pathlib import Path

import pytest

from marey.datasets.groups import find_groups
from marey.datasets.index import Sample
from marey.datasets.open import open_dataset
from marey.errors import UserError
from marey.teaching.data import open_teaching_data

PEOPLE = ("daria", "denis", "eli", "ido", "lena")


def found(names: list[str]) -> tuple[str, list[str]] | None:
    """Return what is found among names `<class>/<file>`."""
    return find_groups([Sample(path=Path(name), label=Path(name).parent.name) for name in names])


@pytest.mark.parametrize(
    ("names", "kind", "groups"),
    [
        (
            [f"{a}/{p}_{a}.avi" for a in ("bend", "jack", "run") for p in PEOPLE]
            + ["jack/lena_jack2.avi", "run/lena_run1.avi"],
            "name",
            list(PEOPLE),
        ),
        (
            [
                f"{a}/person0{p}_{a}_d{d}_uncomp.avi"
                for a in ("walking", "boxing")
                for p in (1, 2, 3)
                for d in (1, 2)
            ],
            "person",
            ["person01", "person02", "person03"],
        ),
        (
            [f"{a}/set1_seq0{q}_{n}.avi" for n, a in enumerate(("kick", "hug")) for q in (1, 2, 3)],
            "sequence",
            ["set1_seq01", "set1_seq02", "set1_seq03"],
        ),
        (
            [
                f"{a}/v_{a}_g0{g}_c0{c}.avi"
                for a in ("Archery", "Biking")
                for g in (1, 2)
                for c in (1, 2)
            ],
            "source",
            ["Archery_g01", "Archery_g02", "Biking_g01", "Biking_g02"],
        ),
        (
            [
                f"A{a}/S001C00{c}P00{p}R001A00{a}_rgb.avi"
                for a in (1, 2)
                for p in (1, 2)
                for c in (1, 2)
            ],
            "person",
            ["p001", "p002"],
        ),
        (
            [
                f"{a}/{film}_{a}_f_cm_np1_ba_med_{n}.avi"
                for a in ("walk", "hug")
                for film in ("heat", "up")
                for n in (0, 1)
            ],
            "source",
            ["heat", "up"],
        ),
        (
            [f"{a}/cam{c}_{n}.mkv" for a in ("walk", "hug") for c in (1, 2, 3) for n in (1, 2)],
            "camera",
            ["cam1", "cam2", "cam3"],
        ),
    ],
)
def test_names_that_data_sets_use_tell_their_groups(names, kind, groups):
    what, of_each = found(names)
    assert what == kind
    assert sorted(set(of_each)) == groups


@pytest.mark.parametrize(
    "pattern",
    ["{a}/{n:03d}.mp4", "{a}/{a}_{n:03d}.mp4", "{a}/IMG_{n:04d}.MOV", "{a}/{a}{n}_front.avi"],
)
def test_running_numbers_tell_no_groups(pattern):
    assert found([pattern.format(a=a, n=n) for a in ("kick", "hug") for n in range(8)]) is None


def test_words_of_one_class_tell_no_groups():
    assert found([f"{a}/{a[:2]}{n}.mp4" for a in ("fight", "calm") for n in range(8)]) is None


def weizmann(folder: Path) -> Path:
    for action in ("bend", "run"):
        (folder / action).mkdir(parents=True)
        for person in PEOPLE:
            (folder / action / f"{person}_{action}.avi").write_bytes(f"{action} {person}".encode())
    return folder


def test_a_folder_says_which_groups_were_read(tmp_path):
    index = open_dataset(weizmann(tmp_path))
    assert [sample.group for sample in index.samples] == [*PEOPLE, *PEOPLE]
    assert "5 names (daria, denis, eli and 2 more)" in index.note


def test_teaching_takes_the_groups_of_names_unless_told_otherwise(tmp_path):
    data = open_teaching_data(weizmann(tmp_path))
    assert data.grouped
    assert data.groups == [*PEOPLE, *PEOPLE]
    assert "daria" in data.notes[0]
    assert "--group" in data.notes[0]

    alone = open_teaching_data(tmp_path, group="none")
    assert not alone.grouped
    assert len(set(alone.groups)) == 10

    told = open_teaching_data(tmp_path, group="/([a-z])")
    assert told.groups == [person[0] for person in (*PEOPLE, *PEOPLE)]


def test_a_group_of_the_manifest_is_kept(tmp_path):
    weizmann(tmp_path)
    rows = [f"{a}/{p}_{a}.avi,{a},{p[-1]}" for a in ("bend", "run") for p in PEOPLE]
    (tmp_path / "manifest.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    assert [sample.group for sample in open_dataset(tmp_path).samples][:3] == ["a", "s", "i"]


def test_stretches_of_one_video_are_one_group(tmp_path):
    rows = [f"{v}.mp4,{a},{s},{s + 2}" for v in ("1", "2") for s in (0, 2) for a in ("sit", "run")]
    (tmp_path / "manifest.csv").write_text(
        "path,label,start_seconds,end_seconds\n" + "\n".join(rows) + "\n"
    )
    index = open_dataset(tmp_path)
    assert {sample.group for sample in index.samples} == {"1.mp4", "2.mp4"}
    assert "stretches of one video" in index.note


def labelled_by_group(folder: Path, groups: list[str]) -> Path:
    """A manifest of two classes by turns, of the given groups."""
    rows = []
    for number, group in enumerate(groups):
        (folder / f"{number}.mp4").write_bytes(str(number).encode())
        rows.append(f"{number}.mp4,{'run' if number % 2 else 'sit'},{group}")
    (folder / "manifest.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    return folder


def test_videos_of_one_group_cannot_be_taught(tmp_path):
    with pytest.raises(UserError, match="all 4 videos are of one group, 'a'.*--group none"):
        open_teaching_data(labelled_by_group(tmp_path, ["a"] * 4))
    assert len(set(open_teaching_data(tmp_path, group="none").groups)) == 4


def test_a_class_of_one_group_is_named(tmp_path):
    notes = open_teaching_data(labelled_by_group(tmp_path, ["a", "b", "c", "b"])).notes
    assert any("all videos of 'run' are of one group each" in note for note in notes)
    (tmp_path / "more").mkdir()
    notes = open_teaching_data(labelled_by_group(tmp_path / "more", ["a", "b", "b", "a"])).notes
    assert not any("one group each" in note for note in notes)
