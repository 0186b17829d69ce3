from __future__ import annotations

import json

import pytest

from marey.papers.tables import (
    Result,
    by_table,
    markdown_table,
    show,
    stored_reading,
    table_lines,
    text_table,
    write_tables,
)


def make_result(name, values, *, table="Table 1", paper=None, errors=(), planned=2):
    seeds = list(range(len(next(iter(values.values()), []))))
    return Result(
        name=name,
        table=table,
        note="",
        paper=paper or {},
        values=values,
        seeds_run=seeds,
        seeds_planned=list(range(planned)),
        errors=list(errors),
    )


SOFTMAX = make_result("S-S", {"top1": [90.0, 91.0]}, paper={"top1": 94.14})
DIRECTED = make_result("C-C", {"top1": [95.0]}, paper={"top1": 98.15, "top5": 99.57})


def test_mean_and_sample_deviation_over_seeds():
    assert SOFTMAX.mean("top1") == 90.5
    assert SOFTMAX.spread("top1") == pytest.approx(0.5**0.5)
    assert DIRECTED.spread("top1") is None
    assert SOFTMAX.mean("top5") is None


def test_status_is_run_failed_or_not_run():
    failed = make_result("bad", {}, errors=["seed 0: RuntimeError: loss is NaN"])
    statuses = [result.to_dict()["status"] for result in (SOFTMAX, failed, make_result("C-S", {}))]
    assert statuses == ["run", "failed", "not run"]
    assert "errors" not in SOFTMAX.to_dict()


def test_numbers_are_shown_plainly():
    numbers = (121303354, 94.14, 0.4712945, None, 1.0)
    assert [show(number) for number in numbers] == ["121,303,354", "94.14", "0.471", "–", "1.00"]


def test_columns_without_any_number_are_left_out():
    header, *_ = table_lines([SOFTMAX, DIRECTED])
    assert header == ["cell", "seeds", "top1 (ours)", "top1 (paper)", "top5 (paper)"]


def test_text_and_markdown_hold_ours_beside_the_paper():
    assert text_table([SOFTMAX, DIRECTED]).splitlines() == [
        "Table 1",
        "cell  seeds  top1 (ours)    top1 (paper)  top5 (paper)",
        "S-S   2/2    90.50 ± 0.707  94.14         –",
        "C-C   1/2    95.00          98.15         99.57",
    ]
    lines = markdown_table([SOFTMAX]).splitlines()
    assert lines[:2] == ["**Table 1**", ""]
    assert lines[2] == "| cell | seeds | top1 (ours) | top1 (paper) |"
    assert lines[3] == "|---|---|---|---|"
    assert lines[4] == "| S-S | 2/2 | 90.50 ± 0.707 | 94.14 |"


def test_each_table_of_the_paper_stands_by_itself():
    results = [SOFTMAX, make_result("I3D", {}, table="Table 2", paper={"top1": 90.0}), DIRECTED]
    assert [(table, len(rows)) for table, rows in by_table(results)] == [
        ("Table 1", 2),
        ("Table 2", 1),
    ]
    assert text_table(results).count("\n\n") == 1
    assert "not run" in text_table(results)


def test_the_files_hold_command_rows_and_the_reading_that_was_there(tmp_path):
    write_tables([SOFTMAX], tmp_path, scale="mini", command="marey reproduce x")
    assert stored_reading(tmp_path) == ""
    stored = json.loads((tmp_path / "table.json").read_text())
    assert (stored["command"], stored["scale"], stored["reading"]) == (
        "marey reproduce x",
        "mini",
        "",
    )
    (tmp_path / "table.json").write_text(json.dumps({**stored, "reading": "One setting."}))
    write_tables([SOFTMAX, DIRECTED], tmp_path, scale="mini", command="again")
    stored = json.loads((tmp_path / "table.json").read_text())
    assert (stored["command"], stored["reading"], len(stored["rows"])) == (
        "again",
        "One setting.",
        2,
    )
    assert (tmp_path / "table.txt").read_text().endswith("\n\nOne setting.\n")


def test_no_table_and_a_broken_table_have_no_reading(tmp_path):
    assert stored_reading(tmp_path) == ""
    (tmp_path / "table.json").write_text("{")
    assert stored_reading(tmp_path) == ""
