from __future__ import annotations

import numpy as np
import pytest

from marey.datasets.ava_format import (
    AVA_60_CLASSES,
    check_box_rows,
    read_box_rows,
    read_label_map,
    read_timestamps,
    rows_from_arrays,
    write_box_rows,
    write_label_map,
)
from marey.errors import UserError


def test_rows_keep_lines_boxes_and_images_without_boxes(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("-5KQ,0902,0.1,0.2,0.3,0.4,80,1\n\n-5KQ,0903\nb_c,902,0.1,0.2,0.3,0.4,,0.5\n")
    rows = read_box_rows(path)
    assert rows.keys == (("-5KQ", 902.0), ("-5KQ", 903.0), ("b_c", 902.0))
    assert rows.class_ids.tolist() == [80, 0]
    assert rows.lines.tolist() == [1, 4]
    assert rows.last.tolist() == [1, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "v,0902,.1,.1,.2,.2,1,0\nv,0902,.1,.1\n",
            r"rows.csv:2: expected 2, 7 or 8 columns .* got 4",
        ),
        ("v,0902,.1,.1,.2,wide,1,0\n", r"rows.csv:1: y2 must be a number, got 'wide'"),
        ("v,0902,.1,.1,.2,.2,walk,0\n", r"rows.csv:1: action_id must be a number, got 'walk'"),
    ],
)
def test_malformed_rows_are_named_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_box_rows(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v,1,.5,.1,.2,.2,1,0", r"rows.csv:2: box \(0.5, 0.1, 0.2, 0.2\) has no area"),
        ("v,1,.5,.1,1.2,.2,1,0", r"rows.csv:2: box .* leaves the image"),
        ("v,1,.1,.1,.2,.2,81,0", r"rows.csv:2: action id 81 is not in the label map"),
    ],
)
def test_bad_boxes_and_unnamed_actions_are_refused(tmp_path, row, message):
    path = tmp_path / "rows.csv"
    path.write_text(f"v,1,.1,.1,.2,.2,2,0\n{row}\n")  # id 2: annotated, not evaluated, passes
    with pytest.raises(UserError, match=message):
        check_box_rows(read_box_rows(path), AVA_60_CLASSES)


def test_written_rows_are_read_back(tmp_path):
    rows = rows_from_arrays(
        [("v", 902.0), ("v", 903.5)],
        np.array([0, 1]),
        np.full((2, 4), [0.125, 0.25, 0.5, 0.75]),
        np.array([1, 0]),
        np.array([0.25, 3]),
    )
    write_box_rows(tmp_path / "out.csv", rows)
    assert (tmp_path / "out.csv").read_text().splitlines()[
        0
    ] == "v,0902,0.125,0.250,0.500,0.750,1,0.2500"
    back = read_box_rows(tmp_path / "out.csv")
    assert back.keys == rows.keys
    np.testing.assert_array_equal(back.boxes_xyxy_norm, rows.boxes_xyxy_norm)


def test_both_spellings_of_a_label_map_are_read(tmp_path):
    path = tmp_path / "map.pbtxt"
    path.write_text(
        'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\n'
        'label {\n  name: "walk"\n  label_id: 14\n  label_type: PERSON_MOVEMENT\n}\n'
    )
    assert read_label_map(path) == {1: "bend/bow (at the waist)", 14: "walk"}
    write_label_map(path, AVA_60_CLASSES)
    assert read_label_map(path) == AVA_60_CLASSES
    path.write_text("nothing")
    with pytest.raises(UserError, match="no classes found"):
        read_label_map(path)


def test_timestamps_name_the_bad_line(tmp_path):
    path = tmp_path / "excluded.csv"
    path.write_text("v,0905\n")
    assert read_timestamps(path) == {("v", 905.0)}
    path.write_text("v,0905\nv;906\n")
    with pytest.raises(UserError, match=r"excluded.csv:2: expected 'video_id,seconds'"):
        read_timestamps(path)
