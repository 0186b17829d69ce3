"""The benchmark that makes and measures marey-mini-gat, run whole on a few small videos."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from marey.inference.features import FeaturePredictor
from marey.video.encode import write_video

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mini_gat(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.mini_gat as module

    monkeypatch.setattr(module, "COMPONENTS", 4)
    monkeypatch.setattr(module, "FOLDS", 2)
    return module


def make_video(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    shape = (12, 3, 48, 48)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    write_video(path, frames, fps=4)


def write_manifest(folder: Path, rows: list[list[Any]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.slow
def test_it_runs_from_videos_to_a_bundle_that_answers(mini_gat: Any, tmp_path: Path) -> None:
    renders: list[list[Any]] = [["path", "label", "split"]]
    for number, split in enumerate(("train", "train", "train", "train", "val", "test", "test")):
        make_video(tmp_path / "renders" / "videos" / f"{number}.mp4", number)
        label = ("kick;punch", "punch", "spin kick")[number % 3]
        renders.append([f"videos/{number}.mp4", label, split])
    write_manifest(tmp_path / "renders", renders)

    head = ["dataset", "path", "label", "group", "frames", "fps", "width", "height", "bytes"]
    real: list[list[Any]] = [head]
    for number in range(8):
        label = ("fight", "noFight")[number % 2]
        make_video(tmp_path / "real" / label / f"{number}.mp4", 100 + number)
        path = f"real/{label}/{number}.mp4"
        real.append(["real", path, label, f"scene{number}", 12, 4.0, 48, 48, 1000 + number])
    write_manifest(tmp_path / "real", real)

    options = {
        "videos": tmp_path / "renders",
        "real": tmp_path / "real",
        "work": tmp_path / "work",
        "bundle": tmp_path / "bundle",
        "out": tmp_path / "result.json",
        "epochs": 1,
        "real-epochs": 1,
        "seeds": 1,
    }
    mini_gat.main([f"--{name}={value}" for name, value in options.items()])

    result = json.loads((tmp_path / "result.json").read_text())
    assert result["renders"]["videos"] == {"train": 4, "val": 1, "test": 2}
    found = result["real"]
    assert found["clips"] == found["scenes"] == 8
    for name in ("gat", "mean_pool_logistic", "metadata_forest", "bundled_embedding_logistic"):
        low, high = found[name]["interval"]
        assert low <= found[name]["accuracy"] <= high
    assert 0 <= found["bundled_as_it_is"]["auroc"] <= 1

    prediction = FeaturePredictor.load(tmp_path / "bundle")(tmp_path / "renders/videos/0.mp4")
    assert prediction.class_names == ("kick", "punch", "spin kick")
    assert prediction.trust["unknown"] in (True, False)


def test_a_score_that_knows_fights_ranks_them_first_and_a_constant_one_does_not(
    mini_gat: Any,
) -> None:
    fights = torch.tensor([True, False] * 10).numpy()
    groups = [f"scene{number // 2}" for number in range(20)]
    assert mini_gat.fight_score(fights.astype(float), fights, groups)["auroc"] == 1
    constant = mini_gat.fight_score(0 * fights.astype(float), fights, groups)
    assert constant["auroc"] == 0.5
    assert constant["interval"] == [0.5, 0.5]
