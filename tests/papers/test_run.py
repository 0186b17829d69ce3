from __future__ import annotations

import json

import pytest

from marey.errors import UserError
from marey.papers.run import (
    Cell,
    estimates,
    join_names,
    markdown_table,
    result_path,
    run_cells,
    run_order,
    select_cells,
    show,
    stored_result,
    text_table,
)


def make_cells(calls, seconds=1.0, settings=None):
    """Two cells x two seeds that note their calls; the first is the main contrast."""
    def run_of(name, seed, base):
        def run():
            calls.append((name, seed))
            return {"top1": base + seed, "detail": [1, 2]}
        return run
    return [Cell(name, seed, run_of(name, seed, base), seconds, {"top1": base * 1.0}, priority=priority,
                 table="Table 1", settings=settings or {})
            for name, base, priority in (("S-S", 90, 1), ("C-C all", 95, 0)) for seed in (0, 1)]


def quiet(line):
    pass


def test_the_main_contrast_gets_all_its_seeds_first():
    order = [(cell.name, cell.seed) for cell in run_order(make_cells([]))]
    assert order == [("C-C all", 0), ("C-C all", 1), ("S-S", 0), ("S-S", 1)]


def test_a_run_writes_one_json_per_cell_and_seed_and_says_the_cost_first(tmp_path):
    calls, lines = [], []
    rows = run_cells(make_cells(calls, seconds=30.0), tmp_path, command="marey reproduce x", say=lines.append)
    assert lines[0] == "4 cell-seeds chosen, 0 already stored, 4 to run; estimated cost 2.0 min (no budget)"
    assert len(calls) == 4
    assert len(list((tmp_path / "cells").glob("*.json"))) == 4
    stored = json.loads((tmp_path / "cells" / "c-c-all-seed1.json").read_text())
    assert stored["results"]["top1"] == 96
    assert stored["command"] == "marey reproduce x"
    assert stored["seconds"] >= 0
    assert rows[0].mean("top1") == 90.5
    assert rows[0].spread("top1") == pytest.approx(0.5**0.5)


def test_a_second_run_runs_nothing_and_gives_the_same_table(tmp_path):
    calls = []
    first = run_cells(make_cells(calls), tmp_path, say=quiet)
    second = run_cells(make_cells(calls), tmp_path, say=quiet)
    assert len(calls) == 4
    assert text_table(first) == text_table(second)


def test_other_settings_another_scale_or_a_broken_file_run_again(tmp_path):
    calls = []
    run_cells(make_cells(calls), tmp_path, say=quiet)
    changed = make_cells(calls, settings={"epochs": 2})
    assert stored_result(tmp_path, changed[0], "mini") is None
    assert stored_result(tmp_path, make_cells(calls)[0], "full") is None
    result_path(tmp_path, changed[0]).write_text('{"cell": "S-')
    assert stored_result(tmp_path, make_cells(calls)[0], "mini") is None


def test_cells_beyond_the_budget_or_not_chosen_are_not_run(tmp_path):
    calls = []
    rows = run_cells(make_cells(calls, seconds=100.0), tmp_path, budget_minutes=1.0, say=quiet)
    assert calls == []
    assert all(row.to_dict()["status"] == "not run" for row in rows)
    assert text_table(rows).count("not run") == 2
    rows = run_cells(make_cells(calls), tmp_path, only=["C-*"], say=quiet)
    assert {name for name, _ in calls} == {"C-C all"}
    assert [row.to_dict()["status"] for row in rows] == ["not run", "run"]


def test_the_measured_time_of_a_seed_replaces_the_estimate(tmp_path):
    cells = make_cells([], seconds=1000.0)
    run_cells(cells[:1], tmp_path, say=quiet)
    assert estimates(cells, tmp_path, "mini")["S-S", 1] < 10
    assert estimates(cells, tmp_path, "mini")["C-C all", 0] == 1000.0


def test_a_failing_cell_is_reported_and_the_others_go_on(tmp_path):
    def fail():
        raise RuntimeError("loss is NaN at step 3")
    cells = [Cell("bad", 0, fail, 1.0), Cell("good", 0, lambda: {"top1": 1.0}, 1.0)]
    rows = run_cells(cells, tmp_path, say=quiet)
    assert rows[0].to_dict()["status"] == "failed"
    assert "loss is NaN at step 3" in text_table(rows)
    assert rows[1].mean("top1") == 1.0
    assert not result_path(tmp_path, cells[0]).exists()


def test_a_dry_run_runs_and_writes_nothing(tmp_path):
    calls, lines = [], []
    run_cells(make_cells(calls), tmp_path / "out", dry_run=True, say=lines.append)
    assert calls == []
    assert len(lines) == 1
    assert not (tmp_path / "out").exists()


def test_the_three_tables_hold_ours_beside_the_paper(tmp_path):
    rows = run_cells(make_cells([]), tmp_path, say=quiet, reading=lambda rows: "No difference beyond the spread.")
    assert "90.50 ± 0.707" in (tmp_path / "table.txt").read_text()
    lines = markdown_table(rows).splitlines()
    assert lines[:2] == ["**Table 1**", ""]
    assert lines[2] == "| cell | seeds | top1 (ours) | top1 (paper) |"
    assert lines[3] == "|---|---|---|---|"
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["reading"] == "No difference beyond the spread."
    assert table["rows"][1]["ours"]["top1"] == {"mean": 95.5, "spread": pytest.approx(0.5**0.5), "values": [95, 96]}


def test_names_that_match_nothing_are_errors(tmp_path):
    with pytest.raises(UserError, match="unknown cell 'C-D'"):
        select_cells(make_cells([]), ["C-D"])
    with pytest.raises(UserError, match="two cells share name and seed"):
        run_cells([*make_cells([]), *make_cells([])], tmp_path, say=quiet)


def test_numbers_are_shown_plainly():
    assert [show(v) for v in (121303354, 94.14, 0.4712945, None, 1.0)] == ["121,303,354", "94.14", "0.471", "–", "1.00"]


def test_a_name_with_a_comma_survives_the_splitting_at_commas():
    names = ["C-C", "C-C, 5 times the steps", "I3D head", "I3D head, GT boxes"]
    assert join_names(["C-C", "5 times the steps", "I3D head"], names) == ["C-C, 5 times the steps", "I3D head"]
    assert join_names(["I3D head", "C-C"], names) == ["I3D head", "C-C"]
    assert join_names(["I3D*", "GT*"], names) == ["I3D*, GT*"]
    assert join_names(["nothing", "C-C"], names) == ["nothing", "C-C"]
