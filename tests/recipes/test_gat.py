from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.errors import UserError
from marey.papers.gat import PAPER, Study, cells, reading, verdict
from marey.papers.run import ReproduceOptions, Row, run_cells, select_cells
from marey.recipes import get_recipe
from marey.recipes.gat import VARIANTS, gat_features, gat_youtube8m, gat_youtube8m_mini, variant_of
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.loop import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_youtube8m_mini(tmp_path_factory.mktemp("mini") / "data", shards=2,
                                 videos={"train": 20, "validate": 6, "test": 10})


def test_the_paper_recipe_holds_the_papers_numbers():
    config = gat_youtube8m()
    assert (config.optim.name, config.optim.lr, config.train.batch_size) == ("adam", 2e-4, 64)
    assert (config.train.eval_every, config.train.patience) == (10_000, 5)
    assert (config.optim.schedule, config.optim.gamma, config.optim.plateau_patience) == ("plateau", 0.1, 3)
    assert config.model.arguments["windows"] == [None, 20]
    assert config.objective.arguments["adversarial"] == {"eps": 0.5, "alpha": 1.0, "attention": "frobenius",
                                                         "beta": 0.001}


def test_recipes_are_listed_by_name():
    for name in ("gat_youtube8m", "gat_youtube8m_mini", "gat_features"):
        assert get_recipe(name).recipe == name


@pytest.mark.parametrize("recipe", [gat_youtube8m, gat_youtube8m_mini, gat_features])
def test_every_recipe_takes_a_step(recipe, folder, tmp_path):
    config = recipe()
    data = {key: value for key, value in config.data.arguments.items() if key != "stream"}
    config = replace(config, data=replace(config.data, path=str(folder), arguments=data),
                     train=replace(config.train, max_steps=1, batch_size=4, device="cpu", tensorboard=False))
    assert train(config, tmp_path / "run", quiet=True).steps == 1


def test_variants_are_the_columns_of_table_1():
    base = gat_youtube8m()
    assert list(VARIANTS) == list(PAPER)
    assert variant_of(base, "SA-CE").model.arguments["windows"] == [None]
    assert "adversarial" not in variant_of(base, "GMSA-CE").objective.arguments
    assert variant_of(base, "GMSA-Adv", eps=2.0).objective.arguments["adversarial"] == {"eps": 2.0}
    with pytest.raises(UserError, match="unknown variant 'GAT'"):
        variant_of(base, "GAT")


def test_cells_cover_tables_and_figures():
    found = {cell.table for cell in cells(ReproduceOptions(seeds=1))}
    assert found == {"Table 1", "Table 2", "Fig. 3", "Fig. 5", "Fig. 6", "Figs. 1b, 6", "Fig. 8"}
    with pytest.raises(UserError, match="give the folder of its shards as --data"):
        cells(ReproduceOptions(scale="full"))


def test_a_small_run_fills_the_table_and_the_figures(folder, tmp_path, monkeypatch):
    from marey.papers import gat as reproduce_gat

    short = gat_youtube8m_mini()
    short = replace(short, train=replace(short.train, max_steps=2, eval_every=2))
    monkeypatch.setattr(reproduce_gat, "gat_youtube8m_mini", lambda: short)
    options = ReproduceOptions(seeds=1, data=str(folder), cache=tmp_path / "cache")
    chosen = select_cells(cells(options), ["SA-CE", "GMSA-CE", "GAT-AdvFr", "profiles", "classes", "listing"])
    rows = {row.name: row for row in run_cells(chosen, tmp_path / "out", say=lambda line: None, reading=reading)}
    assert not any(row.errors for row in rows.values()), [row.errors for row in rows.values()]
    assert set(rows["SA-CE"].values) >= {"gap", "map", "perr", "hit_at_1", "gap_attacked", "map_distance"}
    assert 0 < rows["profiles"].values["GMSA-CE overlap"][0] <= 1
    assert "gated local attention: gap" in (tmp_path / "out" / "table.txt").read_text()


def test_the_mini_data_is_rendered_once(tmp_path, monkeypatch):
    from marey.synthetic import youtube8m as youtube8m_mini

    calls = []

    def render(out, **options):
        calls.append(out)
        return render_youtube8m_mini(out, videos={"train": 2}, shards=1)

    monkeypatch.setattr(youtube8m_mini, "render_youtube8m_mini", render)
    study = Study(options=ReproduceOptions(cache=tmp_path), config=gat_youtube8m_mini())
    assert study.data() == study.data() == tmp_path / "youtube8m-mini"
    assert len(calls) == 1


def test_an_effect_holds_beyond_twice_its_standard_error():
    assert verdict([1.0, 1.0, 1.0], [2.0, 2.1, 1.9]).endswith("(holds)")
    assert verdict([1.0, 1.0, 1.0], [2.0, 0.0, 1.2]).endswith("(within the spread)")
    assert verdict([1.0], [2.0]) == "+1 (one seed)"


def test_reading_without_rows_says_so():
    row = Row(name="SA-CE", table="Table 1", note="", paper={}, values={}, seeds_run=[], seeds_planned=[0], errors=[])
    assert reading([row]) == "No two columns of Table 1 have been run yet."
