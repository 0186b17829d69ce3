from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.errors import UserError
from marey.layers.gated_attention import local_profile
from marey.metrics.youtube8m import METRICS
from marey.papers import gat as study
from marey.papers.cells import ReproduceOptions
from marey.papers.gat_figures import shares_of_video
from marey.papers.run import run_cells, select_cells
from marey.papers.tables import Result
from marey.recipes.gat import VARIANTS, gat_youtube8m_mini
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.config import override


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_youtube8m_mini(
        tmp_path_factory.mktemp("mini") / "data",
        shards=2,
        videos={"train": 20, "validate": 6, "test": 10},
    )


@pytest.mark.parametrize("scale", ["mini", "full"])
def test_table_1_has_every_column_of_the_paper_with_its_numbers(scale):
    rows = study.rows_at(scale, "table1")
    assert {row.name for row in rows if row.paper} == set(VARIANTS)
    assert all(set(row.paper) == set(METRICS) for row in rows if row.paper)
    assert {row.base for row in rows} <= set(VARIANTS)
    assert "S (two global heads)" in {row.name for row in rows}


@pytest.mark.parametrize("scale", ["mini", "full"])
def test_every_row_configures_a_model_of_its_own(scale):
    options = ReproduceOptions(scale=scale, seeds=1)
    shared = study.Study(
        options=options,
        config=study.recipe_of(scale),
        rows={
            row.name: row for key in ("table1", "fig3", "fig5") for row in study.rows_at(scale, key)
        },
    )
    configured = [json.dumps(shared.configure(name).to_dict()) for name in shared.rows]
    assert len(set(configured)) == len(configured)
    assert len({cell.name for cell in study.cells(options)}) == len(study.cells(options))


def test_cells_cover_tables_and_figures():
    found = {cell.table for cell in study.cells(ReproduceOptions(seeds=1))}
    assert found == {
        "Table 1",
        "Table 2",
        "Fig. 3",
        "Fig. 5",
        "Fig. 7",
        "Figs. 1a, 4",
        "Figs. 1b, 6",
        "Fig. 8",
        "Paired differences of GAP, points",
    }
    with pytest.raises(UserError, match="give the folder of its shards as --data"):
        study.check_data(ReproduceOptions(scale="full"))


def test_contrasts_name_models_of_table_1():
    for scale in ("mini", "full"):
        models = {row.name for row in study.rows_at(scale, "table1")}
        for contrast in study.rows_at(scale, "contrasts", study.Contrast):
            assert {contrast.ours, contrast.baseline} <= models


def test_a_small_run_fills_tables_figures_and_page(folder, tmp_path, monkeypatch):
    short = override(gat_youtube8m_mini(), ["train.max_steps=2", "train.eval_every=2"])
    monkeypatch.setattr(study, "gat_youtube8m_mini", lambda: short)
    monkeypatch.setattr(study, "PGD_STEPS", 2)
    options = ReproduceOptions(seeds=1, data=str(folder), cache=tmp_path / "cache")
    wanted = ["SA-CE", "GAT-AdvFr", "GMSA-CE, attacked", "profiles", "classes", "listing"]
    chosen = select_cells(study.cells(options), [*wanted, "GAT against the baseline"])
    out = tmp_path / "out"
    results = run_cells(chosen, out, say=lambda line: None)
    rows: dict[str, Result] = {row.name: row for row in results}
    assert not any(row.errors for row in rows.values()), [row.errors for row in rows.values()]
    assert set(rows["SA-CE"].values) >= {*METRICS, "val_gap", "gap_std_of_5_parts"}
    assert rows["GAT-AdvFr"].values["eps_percent"] == [2.0]
    assert rows["profiles"].values["peak_gated_local"][0] >= 1
    stored = json.loads((out / "cells" / "profiles-seed0.json").read_text())["results"]
    for video in stored["videos"]:
        for curve in video["profiles"].values():
            assert sum(curve) == pytest.approx(1.0, abs=0.01)
    counts = [rows["listing"].values[name][0] for name in ("both right", "neither")]
    assert sum(counts) <= 10
    contrast = rows["GAT against the baseline"].values
    assert contrast["low"][0] <= contrast["difference"][0] <= contrast["high"][0]

    page = study.page(out, results, options)
    assert "Table 2" in page.read_text()
    assert (out / "fig1a_4.png").stat().st_size > 1000


def test_uniform_local_attention_is_uniform_over_the_video_also_in_a_short_last_window():
    mask = torch.arange(7)[None] < torch.tensor([[7], [4]])
    windows = torch.full((2, 1, 3, 3, 3), 1 / 3)
    windows[0, 0, 2] = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])  # one second is left
    windows[1, 0, 1] = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]])
    windows[1, 0, 2] = 0
    found = shares_of_video(local_profile(windows, 7, mask), mask, 3)
    assert torch.allclose(found[0], torch.full((7,), 1 / 7))
    assert torch.allclose(found[1], torch.tensor([0.25] * 4 + [0.0] * 3))
