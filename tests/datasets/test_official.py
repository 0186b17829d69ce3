"""Official layouts with the quirks of their real files, written small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marey.datasets import hmdb51, hmdb_simp, open_dataset
from marey.errors import UserError


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    return root


def test_ucf101_takes_class_order_from_its_list_and_matches_stems_ignoring_case(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        {
            "ucfTrainTestlist/classInd.txt": "1 Hammering\r\n2 HammerThrow\r\n3 "
            "HandstandPushups\r\n",
            "ucfTrainTestlist/trainlist01.txt": "Hammering/v_Hammering_g08_c01.avi 1\r\n"
            "HandstandPushups/v_HandStandPushups_g09_c01.avi 3\r\n",
            "ucfTrainTestlist/testlist01.txt": "HammerThrow/v_HammerThrow_g01_c02.avi\r\n",
            "UCF-101/HandstandPushups/v_HandstandPushups_g09_c01.avi": "",
        },
    )
    index = open_dataset(tmp_path)
    assert index.name == "ucf101:1"
    assert index.class_names == ("Hammering", "HammerThrow", "HandstandPushups")
    assert [index.label_index(s) for s in index.samples] == [0, 2, 1]
    assert index.samples[1].path.name == "v_HandstandPushups_g09_c01.avi"
    assert index.samples[0].group == "Hammering_g08"
    assert [s.split for s in index.samples] == ["train", "train", "test"]
    with pytest.raises(UserError, match=r"trainlist04\.txt: no such file"):
        open_dataset(tmp_path, dataset="ucf101:4")


def test_hmdb51_reads_codes_from_the_right_and_whole_class_names(tmp_path: Path) -> None:
    splits = "testTrainMulti_7030_splits"
    write(
        tmp_path,
        {
            f"{splits}/kick_test_split1.txt": "(HQ)_#1_kick_f_cm_np1_ba_med_0.avi 1 "
            "\nfilm_kick_f_cm_np1_ba_med_3.avi 0 \n",
            f"{splits}/kick_ball_test_split1.txt": "film a_kick_ball_f_nm_np1_fr_goo_2.avi 2 \n",
            f"{splits}/kick_test_split2.txt": "(HQ)_#1_kick_f_cm_np1_ba_med_0.avi 2 \n",
        },
    )
    index = open_dataset(tmp_path)
    assert index.class_names == ("kick", "kick_ball")
    assert {s.label: s.split for s in index.samples} == {"kick": "train", "kick_ball": "test"}
    assert hmdb51.source_film("film a_kick_ball_f_nm_np1_fr_goo_2", "kick_ball") == "film a"
    assert open_dataset(tmp_path, dataset="hmdb51:2").samples[0].split == "test"
    (tmp_path / splits / "kick_test_split1.txt").write_text("a.avi 7\n")
    with pytest.raises(UserError, match=r"kick_test_split1\.txt:1: 'a\.avi 7' is not"):
        open_dataset(tmp_path)


def test_hmdb_simp_is_drawn_at_seed_42_and_says_so(tmp_path: Path) -> None:
    for label in hmdb_simp.CLASS_NAMES:
        (tmp_path / label).mkdir()
        for number in range(51):
            (tmp_path / label / f"v{number:02d}.avi").touch()
    index = open_dataset(tmp_path, dataset="hmdb_simp")
    assert [len(index.split(name)) for name in ("train", "val", "test")] == [900, 225, 125]
    assert set(index.split("test").class_counts.values()) == {5}
    assert "seed 42" in index.note
    assert index.manifest_hash == open_dataset(tmp_path, dataset="hmdb_simp").manifest_hash
    (tmp_path / "wave" / "v00.avi").unlink()
    (tmp_path / "wave" / "v01.avi").unlink()
    with pytest.raises(UserError, match="wave: 49 videos, HMDB_simp needs 50"):
        open_dataset(tmp_path, dataset="hmdb_simp")


def test_hmdb_simp_reads_the_studys_own_copy(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train.csv": "class,video_name\nsmoke,92D80861\n",
            "val.csv": "class,video_name\nwave,00000001\n",
            "test.csv": "class,video_name\nwave,00000002\n",
            "HMDB_simp/smoke/92D80861/0001.jpg": "",
        },
    )
    index = open_dataset(tmp_path)
    assert index.name == "hmdb_simp"
    assert index.samples[0].path == tmp_path / "HMDB_simp" / "smoke" / "92D80861"
    assert "study's own copy" in index.note


def test_kinetics_reads_quoted_labels_and_finds_either_folder_spelling(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "train.csv": 'label,youtube_id,time_start,time_end,split,is_cc\n"air '
            'drumming",--nQbRBEz2s,104,114,train,0\n',
            "val.csv": 'label,youtube_id,time_start,time_end,split,is_cc\n"hurling '
            '(sport)",abc,1,11,val,0\n',
            "test.csv": "youtube_id,time_start,time_end,split\nxyz,0,10,test\n",
            "train/air_drumming/--nQbRBEz2s_000104_000114.mp4": "",
        },
    )
    index = open_dataset(tmp_path)
    assert index.name == "kinetics400"
    assert index.class_names == ("air drumming", "hurling (sport)")
    by_split = {s.split: s for s in index.samples}
    assert by_split["train"].path.parent.name == "air_drumming"
    assert by_split["val"].path == tmp_path / "val" / "hurling (sport)" / "abc_000001_000011.mp4"
    assert by_split["test"].label is None
    assert index.label_index(by_split["test"]) == -1


def test_something_v2_strips_brackets_and_orders_by_number(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "labels/labels.json": json.dumps(
                {"Zooming something": "1", "Approaching something": "0"}
            ),
            "labels/train.json": json.dumps(
                [{"id": "7", "template": "Zooming [something]", "placeholders": ["cup"]}]
            ),
            "labels/test.json": json.dumps([{"id": "9"}]),
        },
    )
    index = open_dataset(tmp_path)
    assert index.class_names == ("Approaching something", "Zooming something")
    assert [(s.path.name, index.label_index(s)) for s in index.samples] == [
        ("7.webm", 1),
        ("9.webm", -1),
    ]
    (tmp_path / "labels" / "train.json").write_text(
        json.dumps([{"id": "7", "template": "Eating [food]"}])
    )
    with pytest.raises(
        UserError, match=r"video 7: template 'Eating \[food\]' is not in labels.json"
    ):
        open_dataset(tmp_path)


def test_jester_takes_class_order_from_the_users_label_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "jester-v1-labels.csv": "Swiping Left\nDrumming Fingers\n",
            "jester-v1-train.csv": "34870;Drumming Fingers\n",
            "jester-v1-validation.csv": "5;Swiping Left\n",
            "jester-v1-test.csv": "1420\n",
            "20bn-jester-v1/34870/00001.jpg": "",
        },
    )
    index = open_dataset(tmp_path)
    assert index.name == "jester"
    assert [index.label_index(s) for s in index.samples] == [1, 0, -1]
    assert index.samples[0].path == tmp_path / "20bn-jester-v1" / "34870"
    (tmp_path / "jester-v1-train.csv").write_text("1;Flying\n")
    with pytest.raises(UserError, match=r"jester-v1-train.csv:1: label 'Flying'"):
        open_dataset(tmp_path)
