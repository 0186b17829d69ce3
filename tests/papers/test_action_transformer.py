from __future__ import annotations

import pytest

import marey.papers.action_transformer as study
from marey.errors import UserError
from marey.papers.cells import ReproduceOptions


def test_every_line_of_the_tables_is_a_cell_and_the_contrast_comes_first(tmp_path):
    options = ReproduceOptions(cache=tmp_path, seeds=2)
    cells = study.cells(options)
    assert len(cells) == 2 * len(study.VARIANTS_OF_TABLES) + 6 == 48
    first = {cell.name for cell in cells if cell.priority == 0}
    assert {"I3D head, GT boxes", "Tx LowRes, GT boxes", "Tx HighRes, GT boxes"} <= first
    paper = {cell.name: cell.paper for cell in cells}
    assert paper["Tx HighRes"] == {"mAP": 18.9, "loc50": 87.7, "loc75": 63.3, "params": 19.3}


def test_the_full_scale_is_the_paper_s_training(tmp_path):
    with pytest.raises(UserError, match="give --data DIR in AVA's layout"):
        study.check_data(ReproduceOptions(scale="full"))
    (tmp_path / "ava_train_v2.2.csv").write_text("")
    with pytest.raises(UserError, match="convert rgb_imagenet.pt --from i3d"):
        study.check_data(ReproduceOptions(scale="full", data=str(tmp_path)))
    options = ReproduceOptions(scale="full", data=str(tmp_path), init="i3d")
    study.check_data(options)

    by_name = {v.name: study.full_config(v, options, 1) for v in study.VARIANTS_OF_TABLES}
    assert by_name["Tx HighRes, GT boxes"].train.max_steps == 300_000
    assert by_name["Tx HighRes, R=300"].model.arguments["num_proposals"] == 300
    assert by_name["I3D head"].model.arguments["num_proposals"] == 64
    assert by_name["I3D head, no augmentation"].augment is None
    scratch = by_name.pop("I3D head, from scratch")
    assert scratch.model.arguments["frozen_norm"] is False
    assert scratch.model.init_from is None
    starts = {config.model.init_from for config in by_name.values()}
    assert starts == {"i3d"}
    names = [cell.name for cell in study.cells(options)]
    assert len(set(names)) == 13 + 4
    assert names[-4:] == ["Fig. 4", "Fig. 5", "Fig. 6", "Fig. 7"]
