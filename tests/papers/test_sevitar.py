from __future__ import annotations

import json

import pytest
import torch

from marey.errors import UserError
from marey.papers import sevitar as study
from marey.papers import sevitar_lines
from marey.papers.cells import ReproduceOptions
from marey.papers.run import run_order
from marey.papers.sevitar_mini import MiniSet, Part


def options(**changes):
    return ReproduceOptions(**{"seeds": 3, **changes})


def toy_part(N=20, classes=4, seed=0, noise=0.1):
    """Features whose channel k is high for class k."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % classes
    features = noise * torch.randn(N, 8, 9, 192, generator=generator)
    features[torch.arange(N), :, :, labels] += 3.0
    pixels = (labels * 60).to(torch.uint8).view(N, 1, 1, 1, 1).expand(N, 8, 3, 64, 64).contiguous()
    return Part(features.half(), pixels, labels)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """The study on four toy classes with a stem nobody downloads and label vectors nobody
    embeds."""
    from marey.layers.efficientnet_lite import EfficientNetLiteStem

    names = ("eat", "jump", "run", "walk")
    clips = MiniSet(
        "mocap", names, toy_part(40), toy_part(20, seed=1), toy_part(20, seed=2, noise=2.0)
    )
    stem = EfficientNetLiteStem(32, 64, stage=6, freeze_batch_norm=True).eval()
    monkeypatch.setattr(sevitar_lines, "image_stem", lambda: stem)
    monkeypatch.setattr(study, "open_mini_set", lambda *_: clips)
    monkeypatch.setattr(
        sevitar_lines, "label_vectors", lambda names, cache: torch.eye(4)[: len(names)]
    )
    monkeypatch.setattr(sevitar_lines, "STEPS", {"mocap": 12})
    monkeypatch.setattr(sevitar_lines, "CONV_STEPS", {"mocap": 1})
    return clips


def test_the_main_contrast_comes_first_with_all_its_seeds():
    first = [(cell.name, cell.seed) for cell in run_order(study.cells(options()))][:6]
    assert first == [(f"mocap: {name}", seed) for seed in range(3) for name in study.MAIN]


def test_every_number_of_tables_1_and_2_that_has_a_cell_stands_beside_it():
    cells = {cell.name: cell for cell in study.cells(options(seeds=1, data="videos/ut"))}
    assert cells["mocap: SeViTAR"].paper == {"perturbed": 89.35, "perturbed_mini": 90.54}
    assert cells["ut: SeViTAR"].paper == {"perturbed": 78.92}
    assert cells["mocap: I3D"].paper == {"perturbed": 76.9}
    assert cells["ut: I3D"].paper is None
    assert "the paper's is UCF-101P" in cells["mocap: TimeSformer"].note
    assert cells["SlowFast (quoted)"].paper == {"Kinetics-400P": 55.48}
    assert cells["SlowFast (quoted)"].note == "quoted from the paper, not run"
    assert cells["SlowFast (quoted)"].run() == {}
    assert "ut: size and length alone" in cells


@pytest.mark.parametrize("label", study.LINES)
def test_a_mini_cell_trains_and_is_measured(toy, tmp_path, label):
    result = study.run_line("mocap", label, options(cache=tmp_path), 0)
    assert 0 <= result["perturbed"] <= 100
    assert result["absolute_robustness"] == pytest.approx(
        100 - result["clean"] + result["perturbed"]
    )
    assert result["relative_robustness"] == pytest.approx(
        100 * result["perturbed"] / max(result["clean"], 1e-9)
    )
    kind = (
        "staged" if label == "SeViTAR staged" else "joint" if label.startswith("SeViTAR") else None
    )
    assert result["label_training"] == kind
    run = study.run_folder("mocap", label, 0, options(cache=tmp_path))
    extra = json.loads((run / "last" / "config.json").read_text())["extra"]
    assert extra["config"]["train"]["max_steps"] in (1, 12)


def test_the_full_scale_needs_data():
    with pytest.raises(
        UserError, match="--scale full trains on the paper's data sets: give --data DIR"
    ):
        study.check_data(options(scale="full"))
    cells = study.cells(options(scale="full", data="ucf", seeds=1))
    papers = {cell.name: cell.paper for cell in cells}
    assert papers["HMDB-51P SeViTAR"] == {"perturbed": 78.92, "perturbed_mini": 80.98}
    assert papers["UCF-101P I3D"] == {"perturbed": 76.9}
    assert papers["Kinetics-400P I3D"] is None


def test_every_backbone_gets_the_same_epochs_and_a_start_that_fits(tmp_path):
    """SeViTAR's first stage is half of its run."""
    ucf = study.FULL["UCF-101P"]
    rows = {row.name: row for row in study.FULL_ROWS}
    (tmp_path / "i3d").mkdir()
    (tmp_path / "i3d" / "config.json").write_text(json.dumps({"model": "i3d"}))
    starts = {}
    for init in ("hf:vit", str(tmp_path / "i3d")):
        given = options(scale="full", data="ucf", init=init)
        configs = {name: study.full_config(ucf, row, given, 0) for name, row in rows.items()}
        epochs = {name: config.train.epochs for name, config in configs.items()}
        assert epochs == {"TimeSformer": 15, "SeViTAR": 30, "I3D": 15}
        shares = configs["SeViTAR"].objective.label.stage_shares
        assert epochs["SeViTAR"] * shares[0] == epochs["TimeSformer"]
        starts[init] = {name: config.model.init_from for name, config in configs.items()}
    assert starts["hf:vit"] == {"TimeSformer": "hf:vit", "SeViTAR": "hf:vit", "I3D": None}
    assert starts[str(tmp_path / "i3d")] == {
        "TimeSformer": None,
        "SeViTAR": None,
        "I3D": str(tmp_path / "i3d"),
    }


def test_size_and_length_alone_are_the_nearest_training_video(tmp_path):
    from marey.video.encode import write_video

    for split, lengths in (("train", (4, 12)), ("test", (5, 11))):
        for label, length in zip(("kick", "hug"), lengths, strict=True):
            path = tmp_path / "ut" / split / label / "a.mp4"
            path.parent.mkdir(parents=True)
            write_video(path, torch.zeros(length, 3, 32, 32, dtype=torch.uint8), 10)
    assert study.run_control(options(data=str(tmp_path / "ut")))["clean"] == 100.0
