from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("google_crc32c", reason="the extra 'yt8m' is not installed")

from marey.errors import UserError
from marey.recipes import get_recipe
from marey.recipes.gat import VARIANTS, gat_features, gat_youtube8m, gat_youtube8m_mini, variant_of
from marey.synthetic.youtube8m import render_youtube8m_mini
from marey.training.loop import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return render_youtube8m_mini(
        tmp_path_factory.mktemp("mini") / "data",
        shards=2,
        videos={"train": 20, "validate": 6, "test": 10},
    )


def test_the_paper_recipe_holds_the_papers_numbers():
    config = gat_youtube8m()
    assert (config.optim.name, config.optim.lr, config.train.batch_size) == ("adam", 2e-4, 64)
    assert (config.train.eval_every, config.train.patience) == (10_000, 5)
    assert (config.optim.schedule, config.optim.gamma, config.optim.plateau_patience) == (
        "plateau",
        0.1,
        3,
    )
    assert config.model.arguments["windows"] == [None, 20]
    assert config.objective.weights == {"class": 1.0, "adversarial": 1.0, "attention": 0.001}
    assert (config.objective.adversarial.eps, config.objective.adversarial.distance) == (
        0.5,
        "frobenius",
    )


def test_recipes_are_listed_by_name():
    for name in ("gat_youtube8m", "gat_youtube8m_mini", "gat_features"):
        assert get_recipe(name).recipe == name


@pytest.mark.parametrize("recipe", [gat_youtube8m, gat_youtube8m_mini, gat_features])
def test_every_recipe_takes_a_step(recipe, folder, tmp_path):
    config = recipe()
    features = replace(config.data.features, stream=False)
    config = replace(
        config,
        data=replace(config.data, path=str(folder), features=features),
        train=replace(config.train, max_steps=1, batch_size=4, device="cpu", tensorboard=False),
    )
    assert train(config, tmp_path / "run", quiet=True).steps == 1


def test_variants_are_the_columns_of_table_1():
    base = gat_youtube8m()
    assert list(VARIANTS) == ["SA-CE", "GMSA-CE", "GMSA-Adv", "GAT-AdvJS", "GAT-AdvFr"]
    assert variant_of(base, "SA-CE").model.arguments["windows"] == [None]
    assert variant_of(base, "GMSA-CE").objective.weights == {"class": 1.0}
    assert variant_of(base, "GMSA-Adv", eps=2.0, alpha=0.3).objective.weights == {
        "class": 1.0,
        "adversarial": 0.3,
    }
    assert variant_of(base, "GMSA-Adv", eps=2.0).objective.adversarial.eps == 2.0
    assert variant_of(base, "GAT-AdvJS").objective.weights["attention"] == 0.01
    assert variant_of(base, "GAT-AdvJS").objective.adversarial.distance == "js"
    with pytest.raises(UserError, match="unknown variant 'GAT'"):
        variant_of(base, "GAT")
