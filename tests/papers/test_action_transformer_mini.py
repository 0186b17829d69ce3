from __future__ import annotations

import pytest
import torch

import marey.papers.action_transformer_mini as study
from marey.datasets.ava_clips import AvaDataset
from marey.models.action_transformer import ActionTransformer, count_parameters
from marey.papers import action_transformer_paired, action_transformer_scenes
from marey.papers.action_transformer import TABLES, VARIANTS_OF_TABLES
from marey.papers.cells import ReproduceOptions
from marey.recipes.action_transformer import TABLE_MODEL
from marey.synthetic.relations import RELATIONS

TINY = {
    **TABLE_MODEL,
    "trunk_arguments": {"channels": 8},
    "num_proposals": 6,
    "rpn_channels": 8,
    "dim": 8,
    "ffn": 16,
    "location_channels": 8,
    "anchor_sizes": (16.0, 48.0),
    "samples_per_clip": 4,
}


def features(kind):
    """Twelve scenes in which the half of the map a person stands in is bright."""
    steps = 6 if kind == "test-long" else 4
    num_classes = len(RELATIONS) if "relations" in kind else 2
    generator = torch.Generator().manual_seed(0)
    maps, boxes, labels = torch.randn(12, 8, steps, 14, 14, generator=generator) * 0.1, [], []
    for i in range(12):
        left = i % 2
        maps[i, left, :, 4:10, 7 * left : 7 * left + 7] += 2
        boxes.append(torch.tensor([[0.5 * left, 0.25, 0.5 * left + 0.5, 0.75]]))
        labels.append(torch.eye(num_classes)[left : left + 1])
    return study.Mapped(
        maps=maps.half(),
        proposals=[torch.cat([box, box * 0.9]) for box in boxes],
        boxes=boxes,
        labels=labels,
    )


@pytest.fixture
def options(tmp_path, monkeypatch):
    class Scenes:
        def __init__(self, kind):
            self.index = self
            self.class_names = RELATIONS if "relations" in kind else ("left", "right")

    monkeypatch.setattr(study, "TABLE_MODEL", TINY)
    monkeypatch.setattr(study, "STEPS", 3)
    monkeypatch.setattr(study, "dataset_of", lambda options, kind: Scenes(kind))
    monkeypatch.setattr(study, "first_run", lambda options: ("first", {}))
    monkeypatch.setattr(study, "trunk_maps", lambda options, kind: (kind, features(kind)))
    return ReproduceOptions(cache=tmp_path, seeds=2)


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS_OF_TABLES if not v.scratch], ids=lambda v: v.name
)
def test_every_line_trains_and_is_measured(options, variant):
    result = study.run_mini(variant, options, 0)
    assert ("loc50" in result) == (variant.boxes == "own")
    assert ("twins" in result) == (variant.scenes == "relations")
    truth, found = action_transformer_paired.read_answers(options.cache, variant.name, 0)
    assert len(truth.keys) == len(found.keys) == 12


def test_the_same_seed_gives_the_same_number(options):
    variant = VARIANTS_OF_TABLES[5]
    first = study.run_mini(variant, options, 0)
    for file in options.cache.glob("features/*/*"):
        file.unlink()
    assert study.run_mini(variant, options, 0) == first


def test_the_parameters_are_those_of_the_model_that_was_trained(options):
    variant = VARIANTS_OF_TABLES[0]
    result = study.run_mini(variant, options, 0)
    model = study.build(variant, options, 0)
    assert result["params"] == round(sum(p.numel() for p in model.parameters()) / 1e6, 3)


def head_parameters(row):
    arguments = {**TABLE_MODEL, **row.model, **row.mini}
    with torch.device("meta"):
        model = ActionTransformer(num_classes=23, num_frames=8, **arguments)
    return count_parameters(model)["head"]


def test_heads_keep_the_paper_s_proportions_and_matched_ones_are_equal():
    rows = {row.name: row for row in VARIANTS_OF_TABLES}
    i3d, low, high = (
        head_parameters(rows[f"{name}, GT boxes"])
        for name in ("I3D head", "Tx LowRes", "Tx HighRes")
    )
    # At full size 4.759, 2.535 and 7.811 M.
    assert i3d / low == pytest.approx(4.759 / 2.535, rel=0.03)
    assert high / low == pytest.approx(7.811 / 2.535, rel=0.03)
    for name in ("Tx LowRes, GT boxes, matched", "Tx HighRes, GT boxes, matched"):
        assert head_parameters(rows[name]) == pytest.approx(i3d, rel=0.01)
    assert head_parameters(rows["Relations: Tx HighRes"]) == pytest.approx(
        head_parameters(rows["Relations: I3D head"]), rel=0.01
    )


@pytest.mark.parametrize(
    ("name", "millions"), [("I3D head", 16.2), ("Tx LowRes", 13.9), ("Tx HighRes", 19.3)]
)
def test_the_paper_s_size_has_the_paper_s_parameters(name, millions):
    row = next(row for row in VARIANTS_OF_TABLES if row.name == name)
    with torch.device("meta"):
        model = ActionTransformer(num_classes=60, background=True, **row.model)
    assert count_parameters(model)["total"] == pytest.approx(millions, abs=0.1)


def test_contrasts_name_lines_and_their_test_is_written(options, tmp_path):
    names = {row.name for row in VARIANTS_OF_TABLES}
    for contrast in TABLES["contrasts"]:
        assert {contrast["first"], contrast["second"]} <= names
    first, second = (TABLES["contrasts"][0][key] for key in ("first", "second"))
    for row in VARIANTS_OF_TABLES:
        if row.name in (first, second):
            study.run_mini(row, options, 0)
    path = action_transformer_paired.write_contrasts(
        tmp_path, options.cache, TABLES["contrasts"][:2], {first: [0], second: [0, 1]}
    )
    text = path.read_text()
    assert '"scenes": 12' in text
    assert '"seeds": [\n        0\n      ]' in text


def test_from_scratch_the_network_is_alive_and_learns(options, tmp_path, monkeypatch):
    variant = next(v for v in VARIANTS_OF_TABLES if v.scratch)
    torch.manual_seed(0)
    model = ActionTransformer(
        num_classes=2,
        num_frames=2,
        **{**TINY, **variant.model, "trunk_arguments": {"channels": 8, "from_scratch": True}},
    )
    clip = torch.randn(2, 2, 3, 64, 64)
    model.train()
    assert model.trunk.stem.training
    assert all(p.requires_grad for p in model.trunk.parameters())
    assert float(model.features(clip).std()) > 0.1
    study.recalibrate_batch_statistics(model, model.features, [clip] * 3)
    model.eval()
    assert float(model.features(clip).std()) > 0.1


def test_scenes_are_seen_once_and_come_back_with_their_persons():
    class Scenes:
        items = (
            {"boxes_xyxy_norm": torch.rand(2, 4), "labels": torch.eye(2)},
            {"boxes_xyxy_norm": torch.rand(0, 4), "labels": torch.zeros(0, 2)},
        )

        def __len__(self):
            return 2

        def __getitem__(self, key):
            return {"clip": torch.full((4, 3, 8, 8), 1.0 - key[1]), **self.items[key[1]]}

    class Stem:
        def stem_features(self, clip):
            return clip, clip[..., :4, :4]

    found = action_transformer_scenes.see_scenes(Scenes(), Stem())
    assert found["fine"].flatten(1).mean(1).tolist() == [1, 0]
    assert found["coarse"].shape == (2, 4, 3, 4, 4)
    assert found["persons"].tolist() == [2, 0]
    assert torch.equal(found["boxes"], Scenes.items[0]["boxes_xyxy_norm"])


def test_flipped_boxes_are_mirrored():
    box = torch.tensor([[0.1, 0.2, 0.4, 0.9]])
    assert action_transformer_scenes.flip_boxes(box, True).tolist()[0] == pytest.approx(
        [0.6, 0.2, 0.9, 0.9]
    )
    assert action_transformer_scenes.flip_boxes(box, False) is box


def test_unlabelled_test_data_is_refused(tmp_path):
    from marey.errors import UserError

    (tmp_path / "frames" / "v").mkdir(parents=True)
    for number in range(60):
        (tmp_path / "frames" / "v" / f"v_{number:06d}.jpg").write_bytes(b"")
    (tmp_path / "ava_train.csv").write_text("v,0901,0.1,0.1,0.5,0.9,1,0\n")
    (tmp_path / "ava_test.csv").write_text("v,0901\n")
    options = ReproduceOptions(cache=tmp_path, data=str(tmp_path))
    with pytest.raises(UserError, match="none of its .* key frames has a person with"):
        action_transformer_scenes.load_data(options)


def test_the_official_list_of_excluded_test_seconds_is_no_test_split(tmp_path):
    (tmp_path / "frames" / "v").mkdir(parents=True)
    for number in range(60):
        (tmp_path / "frames" / "v" / f"v_{number:06d}.jpg").write_bytes(b"")
    for split in ("train", "val"):
        (tmp_path / f"ava_{split}_v2.2.csv").write_text("v,0901,0.1,0.1,0.5,0.9,1,0\n")
    (tmp_path / "ava_test_excluded_timestamps_v2.2.csv").write_text("v,0903\n")
    options = ReproduceOptions(cache=tmp_path, data=str(tmp_path))
    assert action_transformer_scenes.load_data(options)[1].split == "val"


def test_masked_scenes_show_the_labelled_person_only(tmp_path):
    pytest.importorskip("pybullet")
    from marey.synthetic.relations import render_relations

    render_relations(tmp_path / "action_transformer" / "relations_test", 1, split="test")
    options = ReproduceOptions(cache=tmp_path)
    whole, masked = (
        action_transformer_scenes.dataset_of(options, f"relations test{kind}")
        for kind in ("", " masked")
    )
    assert isinstance(whole, AvaDataset)
    key = whole.index.key_frames[0]
    a, b = whole.frames(key), masked.frames(key)
    x1, y1, x2, y2 = (key.boxes_xyxy_norm[0] * 112).round().int().tolist()
    assert torch.equal(a[4, :, y1:y2, x1:x2], b[4, :, y1:y2, x1:x2])
    outside = torch.ones(112, 112, dtype=torch.bool)
    outside[y1:y2, x1:x2] = False
    assert bool((b[4][:, outside] == 128).all())
