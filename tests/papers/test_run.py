from __future__ import annotations

import json

import pytest

from marey.errors import UserError
from marey.papers.cells import Cell, ReproduceOptions
from marey.papers.run import (
    STUDIES,
    estimates,
    get_study,
    join_names,
    reproduce,
    result_path,
    run_cells,
    run_order,
    select_cells,
    stored_result,
)
from marey.papers.tables import text_table


def make_cells(calls, seconds=1.0, settings=None):
    """Two cells x two seeds that note their calls; the first is the main contrast."""

    def run_of(name, seed, base):
        def run():
            calls.append((name, seed))
            return {"top1": base + seed, "detail": [1, 2]}

        return run

    return [
        Cell(
            name,
            seed,
            run_of(name, seed, base),
            seconds,
            {"top1": base * 1.0},
            priority=priority,
            table="Table 1",
            settings=settings or {},
        )
        for name, base, priority in (("S-S", 90, 1), ("C-C all", 95, 0))
        for seed in (0, 1)
    ]


def quiet(line):
    pass


def test_the_main_contrast_gets_all_its_seeds_first():
    order = [(cell.name, cell.seed) for cell in run_order(make_cells([]))]
    assert order == [("C-C all", 0), ("C-C all", 1), ("S-S", 0), ("S-S", 1)]


def test_a_run_writes_one_json_per_cell_and_seed_and_says_the_cost_first(tmp_path):
    calls, lines = [], []
    rows = run_cells(
        make_cells(calls, seconds=30.0), tmp_path, command="marey reproduce x", say=lines.append
    )
    assert (
        lines[0]
        == "4 cell-seeds chosen, 0 already stored, 4 to run; estimated cost 2.0 min (no budget)"
    )
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


def test_a_dry_run_says_the_plan_and_runs_and_writes_nothing(tmp_path):
    calls, lines = [], []
    run_cells(make_cells(calls, seconds=90.0), tmp_path / "out", dry_run=True, say=lines.append)
    assert calls == []
    assert lines[1:] == [
        "[1/4] C-C all seed 0: about 1.5 min",
        "[2/4] C-C all seed 1: about 1.5 min",
        "[3/4] S-S seed 0: about 1.5 min",
        "[4/4] S-S seed 1: about 1.5 min",
    ]
    assert not (tmp_path / "out").exists()


def test_a_reading_is_kept_and_never_written(tmp_path):
    run_cells(make_cells([])[:1], tmp_path, say=quiet)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["reading"] == ""
    table["reading"] = "No difference beyond the spread."
    (tmp_path / "table.json").write_text(json.dumps(table))
    run_cells(make_cells([]), tmp_path, say=quiet)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["reading"] == "No difference beyond the spread."
    assert table["rows"][1]["ours"]["top1"]["values"] == [95, 96]
    assert (tmp_path / "table.md").read_text().endswith("\n\nNo difference beyond the spread.\n")


@pytest.mark.parametrize("name", [*STUDIES, "hmdb-study", "action-transformer"])
@pytest.mark.parametrize("scale", ["mini", "full"])
def test_every_study_prints_its_plan_without_data(name, scale, tmp_path, capsys):
    options = ReproduceOptions(scale=scale, seeds=2, cache=tmp_path)
    results = reproduce(name, options, tmp_path / "out", dry_run=True)
    plan = capsys.readouterr().err.splitlines()
    assert "estimated cost" in plan[0]
    assert len(plan) - 1 == sum(len(result.seeds_planned) for result in results)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", STUDIES)
def test_the_full_scale_needs_data_and_says_which(name, tmp_path):
    with pytest.raises(UserError, match="--data"):
        reproduce(name, ReproduceOptions(scale="full", cache=tmp_path), tmp_path / "out")


def test_unknown_names_and_a_file_in_place_of_the_folder_are_errors(tmp_path):
    with pytest.raises(UserError, match="unknown study 'gatt'; did you mean 'gat'"):
        get_study("gatt")
    with pytest.raises(UserError, match="unknown scale 'midi'"):
        reproduce("gat", ReproduceOptions(scale="midi"), tmp_path)
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="is a file, expected a folder"):
        reproduce("gat", ReproduceOptions(), tmp_path / "out")


def test_names_that_match_nothing_are_errors(tmp_path):
    with pytest.raises(UserError, match="unknown cell 'C-D'"):
        select_cells(make_cells([]), ["C-D"])
    with pytest.raises(UserError, match="two cells share name and seed"):
        run_cells([*make_cells([]), *make_cells([])], tmp_path, say=quiet)


def test_a_name_with_a_comma_survives_the_splitting_at_commas():
    names = ["C-C", "C-C, 5 times the steps", "I3D head", "I3D head, GT boxes"]
    assert join_names(["C-C", "5 times the steps", "I3D head"], names) == [
        "C-C, 5 times the steps",
        "I3D head",
    ]
    assert join_names(["I3D head", "C-C"], names) == ["I3D head", "C-C"]
    assert join_names(["I3D*", "GT*"], names) == ["I3D*, GT*"]
    assert join_names(["nothing", "C-C"], names) == ["nothing", "C-C"]
