from __future__ import annotations

from collections import Counter

import pytest

from marey.errors import UserError
from marey.papers import direcformer as study
from marey.papers.cells import ReproduceOptions
from marey.papers.run import run_order


def options(**changes):
    return ReproduceOptions(**{"seeds": 3, **changes})


def test_the_main_contrast_comes_first_with_all_its_seeds():
    first = [(cell.name, cell.seed) for cell in run_order(study.cells(options()))][:6]
    assert first == [(name, seed) for seed in range(3) for name in study.MAIN]


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
    }
    assert all(cell.estimate_seconds > 3600 for cell in cells if cell.table != "Table 5, Fig. 1")


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
        if not cell.name.startswith("size")
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
