"""The whole measurement on videos whose answers are known by construction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from marey.corruptions import corruption
from marey.datasets import open_dataset
from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.evaluation import changed_clips as shown
from marey.evaluation import robustness as benchmark
from marey.evaluation.candidates import load_candidate, match_classes
from marey.evaluation.robustness import BenchmarkConfig, run
from marey.evaluation.robustness_figures import curve, heat_colour
from marey.evaluation.robustness_report import render, short_names, write_report
from marey.evaluation.robustness_summary import choose_videos, describe_kinds, settings_of, summarise
from marey.video.encode import write_video

HERE = Path(__file__).parent
CONFIG = BenchmarkConfig(corruptions=("brightness", "contrast", "jumble", "reverse_sampling", "h264_crf"),
                         severities=(1, 5), attacks=("fgsm", "geo_trap"), resolution=64, shuffles=2,
                         attack_options={"fgsm": {"eps": 64 / 255}, "geo_trap": {"max_queries": 6}})


@pytest.fixture
def data(tmp_path: Path) -> DatasetIndex:
    """Two videos a class, dark or light, that get brighter with time, and one file that is no video."""
    root = tmp_path / "set"
    for label, level in (("dark", 60), ("light", 190)):
        for i in range(2):
            frames = torch.full((12, 3, 48, 60), level, dtype=torch.uint8)
            frames += (torch.arange(12, dtype=torch.uint8) * 3 + i).view(12, 1, 1, 1)
            write_video(root / label / f"{label}{i}.mp4", frames, fps=24.0)
    (root / "light" / "broken.mp4").write_bytes(b"not a video")
    return open_dataset(root)


@pytest.fixture(autouse=True)
def toys_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def measured(data: DatasetIndex, out: Path, models: tuple[str, ...], config: BenchmarkConfig = CONFIG) -> dict:
    candidates = [load_candidate(name, data.class_names) for name in models]
    report = summarise(list(run(data, candidates, config, out)), models, data.class_names, config)
    return {**report, "settings": settings_of(config), "kinds": describe_kinds(config), "version": "test"}


def test_a_run_from_videos_to_the_page(data: DatasetIndex, tmp_path: Path) -> None:
    models = ("toy_models:brightness_of", "toy_models:brightness_network")
    report = measured(data, tmp_path / "out", models)
    assert report["videos"] == 4
    assert [Path(entry["video"]).name for entry in report["unreadable"]] == ["broken.mp4"]
    assert report["majority_class_share"] == .5
    for name in models:
        model = report["models"][name]
        assert model["clean_accuracy"] == 1.0
        assert model["kinds"]["jumble"]["accuracy"] == {"1": 1.0, "5": 1.0}
        assert model["kinds"]["brightness"]["accuracy"]["5"] == .5              # dark + 127 is light
        assert model["kinds"]["brightness"]["fooling_rate"] == .25
        assert model["kinds"]["brightness"]["profile"] == "imagenet-c"
        assert model["mpc"] == pytest.approx((.75 + 1 + 1 + 1 + 1) / 5)
        assert model["gamma_r"] == pytest.approx(model["mpc"])
        assert model["order"]["order_reliance"] == 0
    assert report["models"][models[0]]["attacks"]["fgsm"] is None               # a bare function has no gradients
    attacked = report["models"][models[1]]["attacks"]["fgsm"]
    assert attacked["max_change_levels"] == 64
    assert attacked["robust_accuracy"] < 1.0
    assert report["pairs"][0]["clean"]["difference"] == 0
    written = write_report(report, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<img") >= 6
    assert "broken.mp4" in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["videos"] == 4
    assert all(path.is_file() for path in written)


def test_a_model_of_order_is_found_out_by_reversal_and_by_shuffling(data: DatasetIndex, tmp_path: Path) -> None:
    report = measured(data, tmp_path / "out", ("toy_models:growing_light",),
                      BenchmarkConfig(corruptions=("reverse_sampling",), severities=(1,), resolution=64, shuffles=8))
    model = report["models"]["toy_models:growing_light"]
    assert model["clean_accuracy"] == .5                                        # everything grows: class 1
    assert model["kinds"]["reverse_sampling"]["accuracy"]["1"] == .5            # everything shrinks: class 0
    assert model["kinds"]["reverse_sampling"]["fooling_rate"] == 1.0
    assert model["order"]["agreement"] < 1.0


def test_a_run_resumes_and_measures_nothing_twice(data: DatasetIndex, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    config = BenchmarkConfig(corruptions=("gaussian_noise",), severities=(3,), resolution=64)
    models = ("toy_models:brightness_network",)
    whole = measured(data, tmp_path / "out", models, config)
    log = tmp_path / "out" / "answers.jsonl"
    lines = [line for line in log.read_text().splitlines() if line]
    log.write_text("\n".join(lines[:2]) + "\n" + lines[2][:30])
    calls = []
    original = benchmark.measure_video
    monkeypatch.setattr(benchmark, "measure_video", lambda *args: calls.append(args[0]) or original(*args))
    assert measured(data, tmp_path / "out", models, config)["models"] == whole["models"]
    assert len([name for name in calls if "broken" not in name]) == 2
    with pytest.raises(UserError, match="holds a report with other settings"):
        measured(data, tmp_path / "out", models, BenchmarkConfig(corruptions=("fog",), resolution=64))


def test_each_video_is_decoded_once_whatever_is_measured(data: DatasetIndex, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = shown.open_video
    monkeypatch.setattr(shown, "open_video", lambda path: opened.append(path) or original(path))
    measured(data, tmp_path / "out", ("toy_models:brightness_network", "toy_models:growing_light"),
             BenchmarkConfig(corruptions=("fog", "freeze", "mpeg1"), severities=(1, 3), resolution=64))
    assert len(opened) == len(data)


def test_models_with_the_same_crop_meet_the_same_noise(data: DatasetIndex) -> None:
    candidates = [load_candidate(name, data.class_names) for name in ("toy_models:brightness_network",
                                                                  "toy_models:growing_light")]
    sample = next(sample for sample in data.samples if "broken" not in sample.path.name)
    video = shown.decode_video("name", sample, [candidate.preprocess for candidate in candidates], resolution=64,
                               max_frames=300)
    first, second = shown.changed_clips(video, corruption("gaussian_noise", 5), seed=0)
    assert torch.equal(first, second)


def test_classes_are_matched_by_name_whatever_their_spelling() -> None:
    data_class_of, logit_of = match_classes("m", ["Cart Wheel", "back_flip", "walk"], ["backflip", "cartwheel"])
    assert data_class_of.tolist() == [1, 0, -1]
    assert logit_of.tolist() == [1, 0]
    with pytest.raises(UserError, match="does not know the class 'swim'"):
        match_classes("m", ["walk"], ["swim"])


def test_a_callable_that_is_not_there_is_said(data: DatasetIndex) -> None:
    with pytest.raises(UserError, match="no module 'nowhere_at_all'"):
        load_candidate("nowhere_at_all:model", data.class_names)
    with pytest.raises(UserError, match="did you mean 'brightness_of'"):
        load_candidate("toy_models:brightnes_of", data.class_names)


def test_a_limit_takes_every_class_in_turn(data: DatasetIndex) -> None:
    chosen = choose_videos(data, None, 3)
    assert len(chosen) == 3
    assert {sample.label for sample in chosen.samples} == {"dark", "light"}


def test_pixel_kinds_see_the_model_s_own_crop(data: DatasetIndex) -> None:
    frames = torch.zeros(1, 3, 90, 120, dtype=torch.uint8)
    frames[..., 60:] = 200
    stretched, cropped = shown.model_view(frames, 0, 64), shown.model_view(frames, 256 / 224, 64)
    assert stretched.shape == cropped.shape == (1, 3, 64, 64)
    assert (stretched[..., 30:34] != stretched[..., :1]).any()


def test_small_parts_of_the_page() -> None:
    assert heat_colour(0) == ("rgb(255,255,255)", "#1c2126")
    assert heat_colour(.9)[1] == "#fff"
    assert short_names(["runs/a/best", "runs/b/best"]) == {"runs/a/best": "a", "runs/b/best": "b"}
    assert short_names(["runs/a/best"]) == {"runs/a/best": "best"}
    assert "<polyline" in curve({"m": [(1, .5)]}, {"m": 1.0}, "fog <&>")
    assert "&lt;&amp;&gt;" in curve({"m": [(1, .5)]}, {"m": 1.0}, "fog <&>")


def test_a_page_without_corruptions_still_renders(data: DatasetIndex, tmp_path: Path) -> None:
    report = measured(data, tmp_path / "out", ("toy_models:brightness_network",),
                      BenchmarkConfig(attacks=("fgsm",), resolution=64, shuffles=0))
    assert "Adversarial change" in render(report)
    with pytest.raises(UserError, match="nothing to measure"):
        BenchmarkConfig(shuffles=0)
