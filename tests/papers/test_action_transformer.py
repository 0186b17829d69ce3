from __future__ import annotations

import pytest
import torch

import marey.papers.action_transformer as study
from marey.errors import UserError
from marey.papers.cells import ReproduceOptions

TINY = {
    "width": 0.125,
    "trunk": "efficientnet_lite0",
    "trunk_arguments": {"channels": 8},
    "num_proposals": 6,
    "rpn_channels": 8,
    "dim": 8,
    "ffn": 16,
    "query_channels": 4,
    "location_channels": 8,
    "anchor_sizes": (16.0, 48.0),
    "samples_per_clip": 4,
    "roi_operator": "align",
    "frozen_norm": False,
}


def features(kind):
    """Twelve scenes in which the half of the map a person stands in is bright."""
    steps = 6 if kind == "test-long" else 4
    maps, boxes, labels = torch.randn(12, 8, steps, 14, 14) * 0.1, [], []
    for i in range(12):
        left = i % 2
        maps[i, left, :, 4:10, 7 * left : 7 * left + 7] += 2
        boxes.append(torch.tensor([[0.5 * left, 0.25, 0.5 * left + 0.5, 0.75]]))
        labels.append(torch.eye(2)[left : left + 1])
    return study.Scenes(features=maps.half(), boxes=boxes, labels=labels)


@pytest.fixture
def options(tmp_path, monkeypatch):
    class Index:
        class_names = ("left", "right")

    monkeypatch.setattr(study, "MINI_MODEL", TINY)
    monkeypatch.setattr(study, "STEPS", 3)
    monkeypatch.setattr(study, "load_data", lambda options: (Index(), Index()))
    monkeypatch.setattr(study, "stored_features", lambda options, kind: features(kind))
    return ReproduceOptions(cache=tmp_path, seeds=2)


def test_every_line_of_the_tables_is_a_cell_and_the_contrast_comes_first(options):
    cells = study.cells(options)
    assert len(cells) == 2 * len(study.VARIANTS_OF_TABLES) == 26
    first = {cell.name for cell in cells if cell.priority == 0}
    assert first == {"I3D head, GT boxes", "Tx LowRes, GT boxes", "Tx HighRes, GT boxes"}
    paper = {cell.name: cell.paper for cell in cells}
    assert paper["Tx HighRes"] == {"mAP": 18.9, "loc50": 87.7, "loc75": 63.3, "params": 19.3}


@pytest.mark.parametrize(
    "variant", [v for v in study.VARIANTS_OF_TABLES if not v.scratch], ids=lambda v: v.name
)
def test_every_line_trains_and_is_measured(options, variant):
    result = study.run_mini(variant, 0, options)
    assert set(result) >= {"mAP", "params"}
    assert ("loc50" in result) == (variant.boxes == "own")
    if "params" in variant.paper:
        assert result["params"] == pytest.approx(variant.paper["params"], abs=0.1)


def test_the_same_seed_gives_the_same_number(options):
    variant = study.VARIANTS_OF_TABLES[5]
    assert study.run_mini(variant, 0, options) == study.run_mini(variant, 0, options)


def test_the_full_scale_is_the_paper_s_training(tmp_path):
    with pytest.raises(UserError, match="give --data DIR in AVA's layout"):
        study.check_data(ReproduceOptions(scale="full"))
    (tmp_path / "ava_train_v2.2.csv").write_text("")
    options = ReproduceOptions(scale="full", data=str(tmp_path))
    by_name = {v.name: study.full_config(v, 1, options) for v in study.VARIANTS_OF_TABLES}
    assert by_name["Tx HighRes, GT boxes"].train.max_steps == 300_000
    assert by_name["Tx HighRes, R=300"].model.arguments["num_proposals"] == 300
    assert by_name["I3D head"].model.arguments["num_proposals"] == 64
    assert by_name["I3D head, no augmentation"].augment is None
    assert by_name["I3D head, from scratch"].model.arguments["frozen_norm"] is False
