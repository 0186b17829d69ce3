"""The data contract: folders, splits, manifests, names that tell the split."""

from __future__ import annotations

from pathlib import Path

import pytest

from marey.datasets.index import is_frame_folder, subset
from marey.datasets.manifest import read_manifest, write_manifest
from marey.datasets.open import open_dataset
from marey.errors import UserError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_class_folders_are_labels_in_sorted_order(tmp_path: Path) -> None:
    touch(
        tmp_path, "run/b.mp4", "run/a.MP4", "jump/c#1 (x).avi", "jump/notes.txt", "jump/.hidden.mp4"
    )
    index = open_dataset(tmp_path)
    assert index.class_names == ("jump", "run")
    assert [index.relative_path(sample) for sample in index.samples] == [
        "jump/c#1 (x).avi",
        "run/a.MP4",
        "run/b.mp4",
    ]
    assert [index.label_index(sample) for sample in index.samples] == [0, 1, 1]
    assert index.splits == ()


def test_split_folders_are_read_and_their_spellings_unified(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "validation/run/b.mp4", "test/jump/c.mp4")
    index = open_dataset(tmp_path)
    assert index.splits == ("train", "val", "test")
    assert [sample.path.name for sample in index.split("validation").samples] == ["b.mp4"]
    assert index.split("test").class_names == ("jump", "run")


def test_a_folder_of_images_is_one_video(tmp_path: Path) -> None:
    touch(tmp_path, "wave/clip1/00001.jpg", "wave/clip1/00002.jpg", "wave/clip2/00001.jpg")
    assert len(open_dataset(tmp_path)) == 2
    assert is_frame_folder(tmp_path / "wave" / "clip1")
    assert not is_frame_folder(tmp_path / "wave")


def test_manifest_paths_are_relative_to_it_then_to_its_parent(tmp_path: Path) -> None:
    touch(tmp_path, "set/here.mp4", "beside.mp4")
    manifest = tmp_path / "set" / "manifest.csv"
    manifest.write_text(
        "path,label,split,group,start_seconds,end_seconds\n"
        "here.mp4,run,training,g1,1.5,3\nbeside.mp4,jump,test,,,\n"
    )
    index = open_dataset(tmp_path / "set")
    first, second = index.samples
    assert first.path == tmp_path / "set" / "here.mp4"
    assert second.path == tmp_path / "beside.mp4"
    assert (first.split, first.group, first.start_seconds, first.end_seconds) == (
        "train",
        "g1",
        1.5,
        3.0,
    )
    assert (second.group, second.start_seconds) == (None, None)


def test_a_written_manifest_reads_back_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "test/jump/c.mp4")
    index = open_dataset(tmp_path)
    write_manifest(index, tmp_path / "again.csv")
    again = read_manifest(tmp_path / "again.csv")
    assert [s.path.resolve() for s in again.samples] == [s.path.resolve() for s in index.samples]
    assert [(s.label, s.split) for s in again.samples] == [
        (s.label, s.split) for s in index.samples
    ]
    assert not list(tmp_path.glob("*.partial"))


def test_the_manifest_hash_sees_labels_and_order_and_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    index = open_dataset(tmp_path)
    assert open_dataset(tmp_path).manifest_hash == index.manifest_hash
    assert subset(index, [1, 0]).manifest_hash != index.manifest_hash


def test_names_tell_the_split_by_named_or_plain_groups(tmp_path: Path) -> None:
    touch(tmp_path, "run/set1_a.mp4", "run/set2_b.mp4", "run/other.mp4")
    named = open_dataset(tmp_path, split_by="(?P<train>set1)|(?P<test>set2)")
    assert {s.path.name: s.split for s in named.samples} == {
        "set1_a.mp4": "train",
        "set2_b.mp4": "test",
        "other.mp4": None,
    }
    plain = open_dataset(tmp_path, split_by="(set1|set2)")
    assert plain.splits == ("set1", "set2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url,label\na,b\n", "no column 'path'"),
        ("path,label\n", "no rows below the header"),
        ("path,label\n,run\n", "manifest.csv:2: empty path"),
        ("path,label,start_seconds\na.mp4,run,soon\n", "manifest.csv:2: could not convert"),
        (
            "path,label,start_seconds,end_seconds\na.mp4,run,3,2\n",
            "end_seconds 2.0 is not after start_seconds 3.0",
        ),
    ],
)
def test_a_bad_manifest_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path)


def test_mistakes_are_named_with_their_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_dataset(tmp_path / "nothing")
    with pytest.raises(UserError, match="no videos found as <class>/<video>"):
        open_dataset(tmp_path)
    touch(tmp_path, "run/a.mp4")
    with pytest.raises(UserError, match="no samples in split 'test'.*marey data split"):
        open_dataset(tmp_path).split("test")
    with pytest.raises(UserError, match="has no group"):
        open_dataset(tmp_path, split_by="set1")
    with pytest.raises(UserError, match="matches no path"):
        open_dataset(tmp_path, split_by="(set1)")
    with pytest.raises(UserError, match="unknown data set 'ucf10'; did you mean 'ucf101'"):
        open_dataset(tmp_path, dataset="ucf10")
    with pytest.raises(UserError, match="number of an official split"):
        open_dataset(tmp_path, dataset="ucf101:first")


def test_answers_of_a_model_are_not_taken_for_labels(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "answers.csv").write_text("video,rank,label,probability\na.mp4,1,walk,0.5\n")
    with pytest.raises(UserError, match="holds a model's answers, not labels"):
        open_dataset(tmp_path)


def test_a_flat_folder_with_a_list_of_stretches_is_read(tmp_path):
    for name in ("a.mp4", "b.dav"):
        (tmp_path / name).write_bytes(b"video")
    (tmp_path / "labels.csv").write_text(
        "File Name,Action,Start,End,Person\na.mp4,wave,0:01.5,1:00:02,anna\nb.dav,bow,2,3.5,ben\n"
    )
    first, second = open_dataset(tmp_path).samples
    assert (first.path, first.label, first.group) == (tmp_path / "a.mp4", "wave", "anna")
    assert (first.start_seconds, first.end_seconds) == (1.5, 3602.0)
    assert (second.label, second.start_seconds, second.end_seconds) == ("bow", 2.0, 3.5)


def test_a_time_that_is_none_is_named_with_its_line(tmp_path):
    (tmp_path / "manifest.csv").write_text("path,label,start,end\na.mp4,wave,soon,3\n")
    with pytest.raises(UserError, match=r"manifest.csv:2: .*clock times such as 1:02.5"):
        open_dataset(tmp_path)


def test_our_own_columns_win_over_other_spellings(tmp_path):
    (tmp_path / "manifest.csv").write_text("video,path,label,class\nx,a.mp4,wave,bow\n")
    sample = open_dataset(tmp_path).samples[0]
    assert (sample.path.name, sample.label) == ("a.mp4", "wave")


def test_recordings_of_surveillance_cameras_are_videos(tmp_path):
    (tmp_path / "fight").mkdir()
    for name in ("cam1.dav", "cam1.m2ts", "notes.txt"):
        (tmp_path / "fight" / name).write_bytes(b"x")
    found = [sample.path.name for sample in open_dataset(tmp_path).samples]
    assert found == ["cam1.dav", "cam1.m2ts"]
