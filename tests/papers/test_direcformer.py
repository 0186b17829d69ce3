from __future__ import annotations

from collections import Counter

import pytest

from marey.errors import UserError
from marey.files import read_json, write_json
from marey.papers import direcformer as study
from marey.papers.cells import ReproduceOptions
from marey.papers.run import run_order


def options(**changes):
    return ReproduceOptions(**{"seeds": 3, **changes})


def test_the_main_contrast_comes_first_with_all_its_seeds():
    first = [(cell.name, cell.seed) for cell in run_order(study.cells(options()))][:9]
    names = (*study.MAIN, "C-C +L_ord+graded")
    assert first == [(name, seed) for seed in range(3) for name in names]


def test_softmax_and_cosine_are_tuned_on_the_same_settings_and_on_validation_windows():
    cells = [cell for cell in study.cells(options()) if cell.name.startswith("validation: ")]
    assert len(cells) == 8
    assert all(cell.settings["split"] == "val" and cell.seed == 0 for cell in cells)
    tried = {
        kind: [
            {key: value for key, value in row.set.items() if "attention" not in key}
            for row in study.rows_of(study.TABLES, "tuning", study.Row)
            if f" {kind}" in row.name
        ]
        for kind in ("S-S", "C-C")
    }
    assert tried["S-S"] == tried["C-C"]
    for row in study.JESTER:
        weight = study.with_chosen(row).set["objective.weights.guided"]
        assert weight == 0 or weight in (1.0, 10.0)


def test_contrasts_pair_the_clips_and_average_the_seeds(tmp_path):
    values = {"S-S": "0000", "C-C +L_ord+L_self": "1110"}
    for name, right in values.items():
        for seed in range(2):
            path = study.result_path(tmp_path, study.Cell(name, seed, dict, 0.0))
            write_json(path, {"results": {"right": right}})
    found = read_json(study.page(tmp_path, [], ReproduceOptions(cache=tmp_path)))["contrasts"]
    assert [entry["lines"] for entry in found] == [["S-S", "C-C +L_ord+L_self"]]
    assert found[0]["difference"] == pytest.approx(0.75)
    assert (found[0]["clips"], found[0]["seeds"]) == (4, 2)
    assert found[0]["p_value"] == pytest.approx(2 / 8)
    assert (tmp_path / "figure1.png").stat().st_size > 3000


def test_lines_the_paper_does_not_have_are_marked():
    cells = {cell.name: cell for cell in study.cells(options(seeds=1))}
    assert cells["S-S +L_ord+L_self"].note == "not in the paper"
    assert cells["S-C +L_ord+L_self"].paper is None
    assert cells["C-C +L_ord+L_self"].paper == {"top1": 98.15, "top5": 99.57, "order_acc": 90.19}
    assert cells["S-S"].paper["order_acc"] == 52.84


def test_the_full_scale_needs_data_and_lists_tables_1_to_5():
    with pytest.raises(
        UserError, match="--scale full trains on the paper's data sets: give --data DIR"
    ):
        study.check_data(options(scale="full"))
    cells = study.cells(options(scale="full", data="jester", seeds=1))
    assert {cell.table for cell in cells} == {
        "Tables 1, 2",
        "Table 3",
        "Table 4",
        "Table 5, Fig. 1",
        *(f"Table {number} (quoted)" for number in (1, 3, 4, 5)),
    }
    trained = [cell for cell in cells if cell.table in ("Tables 1, 2", "Table 3", "Table 4")]
    assert all(cell.estimate_seconds > 3600 for cell in trained)
    quoted = [cell for cell in cells if "quoted" in cell.table]
    assert all(
        cell.run() == {} and cell.paper and "not trained here" in cell.note for cell in quoted
    )


def test_table_5_counts_the_released_layout():
    count = study.count_size("direcformer")
    assert count["parameters"] == 121_303_354
    assert count["gmacs_per_view"] == pytest.approx(196, rel=2e-3)


def test_the_full_cells_train_the_paper_s_lines():
    cells = study.cells(options(scale="full", data="jester", seeds=1))
    assert Counter(cell.table for cell in cells)["Tables 1, 2"] == 10
    lines = {
        cell.name: cell.run.args[1].configure(cell.run.args[0])
        for cell in cells
        if cell.table in ("Tables 1, 2", "Table 3", "Table 4")
    }
    whole = lines["K400 C-C"]
    assert whole.objective.weights == {"class": 1.0, "order": 1.0, "guided": 1.0}
    assert whole.data.dataset == "kinetics400"
    plain = lines["SSv2 S-S"]
    assert plain.objective.weights == {"class": 1.0, "order": 0.0, "guided": 0.0}
    assert plain.model.arguments["time_attention"] == "softmax"
    assert {name for name, cell in ((c.name, c) for c in cells) if cell.priority == 0} == {
        "Jester S-S",
        "Jester C-C +L_ord+L_self",
        "SSv2 S-S",
        "SSv2 C-C",
        "K400 S-S",
        "K400 C-C",
    }
