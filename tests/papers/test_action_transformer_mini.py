from __future__ import annotations

import pytest
import torch

import marey.papers.action_transformer_mini as study
from marey.papers.action_transformer import VARIANTS_OF_TABLES
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


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS_OF_TABLES if not v.scratch], ids=lambda v: v.name
)
def test_every_line_trains_and_is_measured(options, variant):
    result = study.run_mini(variant, options, 0)
    assert set(result) >= {"mAP", "params"}
    assert ("loc50" in result) == (variant.boxes == "own")
    if "params" in variant.paper:
        assert result["params"] == pytest.approx(variant.paper["params"], abs=0.1)


def test_the_same_seed_gives_the_same_number(options):
    variant = VARIANTS_OF_TABLES[5]
    assert study.run_mini(variant, options, 0) == study.run_mini(variant, options, 0)


def test_scenes_are_seen_once_and_come_back_with_their_persons(tmp_path, monkeypatch):
    class Scenes:
        augment = None
        items = (
            {"boxes_xyxy_norm": torch.rand(2, 4), "labels": torch.eye(2)},
            {"boxes_xyxy_norm": torch.rand(0, 4), "labels": torch.zeros(0, 2)},
        )

        def __len__(self):
            return 2

        def __getitem__(self, key):
            return {"clip": torch.full((4, 3, 8, 8), 1.0 - key[1]), **self.items[key[1]]}

    found = study.see_scenes(Scenes(), lambda clip: clip.mean((2, 3, 4), keepdim=True))
    assert found["features"].flatten().tolist() == [1, 1, 1, 0, 0, 0]
    assert found["persons"].tolist() == [2, 0]
    assert torch.equal(found["boxes"], Scenes.items[0]["boxes_xyxy_norm"])
