from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from marey.errors import UserError
from marey.papers import direcformer as study
from marey.papers.run import ReproduceOptions, Row, run_order
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


def options(**changes):
    return ReproduceOptions(**{"seeds": 3, **changes})


def toy_clips(N=20, T=8):
    """Features whose first channel grows with time, so the order is there to be learned."""
    generator = torch.Generator().manual_seed(0)
    features = 0.1 * torch.randn(N, T, 16, 320, generator=generator)
    features[..., 0] += torch.arange(T).float()[None, :, None]
    splits = tuple("test" if i % 5 == 4 else "train" for i in range(N))
    return study.MiniClips(features.half(), torch.arange(N) % 8, splits, study.MINI_RECORDINGS)


def test_the_main_contrast_comes_first_with_all_its_seeds():
    first = [(cell.name, cell.seed) for cell in run_order(study.cells(options()))][:6]
    assert first == [(name, seed) for seed in range(3) for name in study.MAIN]


def test_lines_the_paper_does_not_have_are_marked():
    cells = {cell.name: cell for cell in study.cells(options(seeds=1))}
    assert cells["S-S +L_ord+L_self"].note == "not in the paper"
    assert cells["S-C +L_ord+L_self"].paper is None
    assert cells["C-C +L_ord+L_self"].paper == {"top1": 98.15, "top5": 99.57, "order_acc": 90.19}
    assert cells["S-S"].paper["order_acc"] == 52.84


def test_cells_are_recipes_with_the_attention_and_losses_of_their_name():
    config = study.mini_config("C-S +L_ord", 2)
    assert config.model.arguments["time_attention"] == "cosine"
    assert config.model.arguments["space_attention"] == "softmax"
    assert config.objective.weights == {"class": 1.0, "order": 1.0}
    assert (config.train.seed, config.train.max_steps) == (2, study.MINI_STEPS)


def test_the_full_scale_needs_data_and_lists_tables_1_to_5():
    with pytest.raises(UserError, match="--scale full trains on the paper's data sets: give --data DIR"):
        study.cells(options(scale="full"))
    cells = study.cells(options(scale="full", data="jester", seeds=1))
    assert {cell.table for cell in cells} == {"Tables 1, 2", "Table 3", "Table 4", "Table 5, Fig. 1"}
    assert all(cell.estimate_seconds > 3600 for cell in cells if cell.table != "Table 5, Fig. 1")


def test_table_5_counts_the_released_layout():
    count = study.count_size("direcformer")
    assert count["parameters"] == 121_303_354
    assert count["gmacs_per_view"] == pytest.approx(196, rel=2e-3)


def test_both_ways_are_classes_of_their_own():
    data = study.BothWays(toy_clips())
    assert len(data) == 40
    forward, backward = data[0, 6], data[0, 7]
    assert torch.equal(forward["clip"].flip(0), backward["clip"])
    assert (forward["label"], backward["label"]) == (3, 11)
    assert toy_clips().class_names()[4::8] == ("jump", "jump backwards")
    assert toy_clips().class_names()[5::8] == ("kick", "kick reversed")


def test_features_are_stored_in_the_direction_of_the_recording(tmp_path, monkeypatch):
    frames = np.arange(4, dtype=np.uint8)[None, :, None, None, None] * np.ones((3, 4, 3, 16, 16), np.uint8)
    root = tmp_path / "set"
    root.mkdir()
    np.save(root / "frames.npy", frames)
    (root / "packed.json").write_text(json.dumps({"format": 1, "fps": 8.0,
                                                  "class_names": ["jump", "jump backwards", "walk"]}))
    lines = [f"frames.npy#{i},{label},train,g{i}" for i, label in enumerate(("jump", "jump backwards", "walk"))]
    (root / "manifest.csv").write_text("path,label,split,group\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr("marey.synthetic.mocap.render_dataset", lambda out, clips, plan, workers: out)
    preprocess = Preprocess(sampling=ClipSampling(kind="uniform", num_frames=4), short_side=16, image_size=16,
                            mean=(0.0,) * 3, std=(1 / 255,) * 3)
    arguments = (root, tmp_path / "features.pt", 3, study.MINI_PLAN, lambda clips: clips[:, :, :1, 0, 0, None],
                 preprocess)
    features, names, splits = study.recorded_features(*arguments, only=("jump",))
    assert features[:, :, 0, 0].tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert (names, splits) == (["jump", "jump"], ["train", "train"])
    monkeypatch.setattr("marey.datasets.pack.open_packed", None)     # the second time they are read
    assert torch.equal(study.recorded_features(*arguments, only=("jump",))[0], features)


def test_a_mini_cell_trains_and_is_measured(tmp_path, monkeypatch):
    from marey.layers.paired_stem import PairedStem

    stem = PairedStem(24, 128).eval()
    monkeypatch.setattr(study, "mini_stem", lambda: stem)
    monkeypatch.setattr(study, "mocap_features", lambda cache: toy_clips())
    monkeypatch.setattr(study, "MINI_STEPS", 2)
    result = study.run_mini("C-C +L_ord+L_self", 0, options(cache=tmp_path))
    assert 0 <= result["top1"] <= result["top5"] <= 100
    assert result["order"]["clips"] == 4
    assert result["macs_million"] > 10
    assert (tmp_path / "runs" / result["run"] / "last" / "config.json").is_file()


def make_row(name, values):
    return Row(name=name, table="", note="", paper={}, values=values, seeds_run=list(range(len(values["top1"]))),
               seeds_planned=[0, 1, 2], errors=[])


def test_the_reading_judges_a_difference_by_the_spread():
    plain = make_row("S-S", {"top1": [50.0, 52.0, 54.0], "order_acc": [47.0, 47.2, 47.1]})
    whole = make_row("C-C +L_ord+L_self", {"top1": [53.0, 54.0, 52.0], "order_acc": [60.0, 60.5, 61.0]})
    text = study.reading([plain, whole])
    assert "top1 52.00 -> 53.00 (+1.00; within twice the spread: 2.00)" in text
    assert "order_acc 47.10 -> 60.50 (+13.40; more than twice the spread: 0.5)" in text
    assert "47.13" in text
    assert "has not been run" in study.reading([plain])


def test_the_reading_compares_attentions_under_the_same_losses():
    plain = make_row("S-S", {"top1": [50.0], "order_acc": [47.0]})
    whole = [make_row(f"{kind} +L_ord+L_self", {"top1": [50.0], "order_acc": [value], "order_acc_sorted": [value + 5]})
             for kind, value in (("S-S", 48.0), ("C-C", 52.0))]
    assert "S-S 48.00 (53.00 sorted), C-C 52.00 (57.00 sorted)." in study.reading([plain, *whole])
    assert "same losses" not in study.reading([plain, whole[1]])
