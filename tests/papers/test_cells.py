from __future__ import annotations

import pytest

from marey.errors import UserError
from marey.papers.cells import ReproduceOptions, Row
from marey.recipes.direcformer import direcformer_jester


def test_a_row_changes_what_it_names_and_nothing_else():
    base = direcformer_jester()
    row = Row(
        name="S-S",
        set={
            "model.arguments.time_attention": "softmax",
            "optim.lr": 0.01,
            "objective.weights.guided": 0.0,
        },
    )
    config = row.configure(base)
    assert config.model.arguments == {**base.model.arguments, "time_attention": "softmax"}
    assert config.optim.lr == 0.01
    assert config.objective.weights == {"class": 1.0, "order": 1.0, "guided": 0.0}
    assert config.data == base.data
    assert config.train == base.train
    assert Row(name="as it is").configure(base) == base


def test_a_row_with_an_unknown_setting_is_an_error():
    with pytest.raises(UserError, match="lrr"):
        Row(name="x", set={"optim.lrr": 1.0}).configure(direcformer_jester())


def test_an_accelerator_is_found_by_the_loop_and_a_folder_names_the_data():
    assert ReproduceOptions().train_device == "cpu"
    assert ReproduceOptions(device="cuda").train_device == "auto"
    assert ReproduceOptions(data="videos/ut/").data_name == "ut"
