"""The whole measurement on videos whose answers are known by construction."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from marey.attacks.threat_models import SUITES
from marey.corruptions import corruption
from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.evaluation import changed_clips as shown
from marey.evaluation import pose_candidate as pose_candidates
from marey.evaluation import robustness as benchmark
from marey.evaluation.candidates import load_candidate
from marey.evaluation.pose_candidate import PoseCandidate
from marey.evaluation.robustness import BenchmarkConfig, run
from marey.evaluation.robustness_report import render, write_report
from marey.evaluation.robustness_summary import describe_kinds, settings_of, summarise

HERE = Path(__file__).parent
CONFIG = BenchmarkConfig(
    corruptions=("brightness", "contrast", "jumble", "reverse_sampling", "h264_crf"),
    severities=(1, 5),
    attacks=("fgsm", "geo_trap"),
    at=64,
    shuffles=2,
    attack_options={"fgsm": {"eps": 64 / 255}, "geo_trap": {"max_queries": 6}},
)


def measured(
    data: DatasetIndex, out: Path, models: tuple[str, ...], config: BenchmarkConfig = CONFIG
) -> dict:
    candidates = [load_candidate(name, data.class_names) for name in models]
    report = summarise(list(run(data, candidates, config, out)), models, data.class_names, config)
    return {
        **report,
        "settings": settings_of(config),
        "kinds": describe_kinds(config),
        "version": "test",
    }


def test_a_run_from_videos_to_the_page(data: DatasetIndex, tmp_path: Path) -> None:
    models = ("toy_models:brightness_of", "toy_models:brightness_network")
    report = measured(data, tmp_path / "out", models)
    assert report["videos"] == 4
    assert [Path(entry["video"]).name for entry in report["unreadable"]] == ["broken.mp4"]
    assert report["majority_class_share"] == 0.5
    for name in models:
        model = report["models"][name]
        assert model["clean_accuracy"] == 1.0
        assert model["kinds"]["jumble"]["accuracy"] == {"1": 1.0, "5": 1.0}
        assert model["kinds"]["brightness"]["accuracy"]["5"] == 0.5  # dark + 127 is light
        assert model["kinds"]["brightness"]["fooling_rate"] == 0.25
        assert model["kinds"]["brightness"]["profile"] == "imagenet-c"
        assert model["mpc"] == pytest.approx((0.75 + 1 + 1 + 1 + 1) / 5)
        assert model["gamma_r"] == pytest.approx(model["mpc"])
        assert model["order"]["order_reliance"] == 0
    assert (
        report["models"][models[0]]["attacks"]["fgsm"] is None
    )  # a bare function has no gradients
    attacked = report["models"][models[1]]["attacks"]["fgsm"]
    assert attacked["max_change_levels"] == 64
    assert attacked["robust_accuracy"] < 1.0
    assert report["pairs"][0]["clean"]["difference"] == 0
    written = write_report(report, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<img") == 11
    assert "lazy" not in page  # printed pages have all pictures
    # cards apart: summary, pairs, families, heat map, curves, attacks, order
    assert page.count("n&nbsp;= 4 videos.") == 7
    assert "broken.mp4" in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["videos"] == 4
    assert all(path.is_file() for path in written)


def test_a_model_of_order_is_found_out_by_reversal_and_by_shuffling(
    data: DatasetIndex, tmp_path: Path
) -> None:
    report = measured(
        data,
        tmp_path / "out",
        ("toy_models:growing_light",),
        BenchmarkConfig(corruptions=("reverse_sampling",), severities=(1,), at=64, shuffles=8),
    )
    model = report["models"]["toy_models:growing_light"]
    assert model["clean_accuracy"] == 0.5  # everything grows: class 1
    assert model["kinds"]["reverse_sampling"]["accuracy"]["1"] == 0.5  # everything shrinks: class 0
    assert model["kinds"]["reverse_sampling"]["fooling_rate"] == 1.0
    assert model["order"]["agreement"] < 1.0


def test_a_run_resumes_and_measures_nothing_twice(
    data: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BenchmarkConfig(corruptions=("gaussian_noise",), severities=(3,), at=64)
    models = ("toy_models:brightness_network",)
    whole = measured(data, tmp_path / "out", models, config)
    log = tmp_path / "out" / "answers.jsonl"
    lines = [line for line in log.read_text().splitlines() if line]
    log.write_text("\n".join(lines[:2]) + "\n" + lines[2][:30])
    calls = []
    original = benchmark.measure_video
    monkeypatch.setattr(
        benchmark, "measure_video", lambda *args: calls.append(args[0]) or original(*args)
    )
    assert measured(data, tmp_path / "out", models, config)["models"] == whole["models"]
    assert len([name for name in calls if "broken" not in name]) == 2
    with pytest.raises(UserError, match="holds a report with other settings"):
        measured(data, tmp_path / "out", models, BenchmarkConfig(corruptions=("fog",), at=64))


def test_each_video_is_decoded_once_whatever_is_measured(
    data: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    original = shown.open_video
    monkeypatch.setattr(shown, "open_video", lambda path: opened.append(path) or original(path))
    measured(
        data,
        tmp_path / "out",
        ("toy_models:brightness_network", "toy_models:growing_light"),
        BenchmarkConfig(corruptions=("fog", "freeze", "mpeg1"), severities=(1, 3), at=64),
    )
    assert len(opened) == len(data)


def test_a_page_without_corruptions_still_renders(data: DatasetIndex, tmp_path: Path) -> None:
    report = measured(
        data,
        tmp_path / "out",
        ("toy_models:brightness_network",),
        BenchmarkConfig(attacks=("fgsm",), at=64, shuffles=0),
    )
    assert "Adversarial change" in render(report)
    with pytest.raises(UserError, match="nothing to measure"):
        BenchmarkConfig(shuffles=0)


def test_threat_models_and_their_alarms_reach_the_report(
    data: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threat = SUITES["quick"][0]
    short = {"apgd_ce": {"eps": threat.eps, "steps": 2}}
    suites = {"quick": (replace(threat, attacks=short),)}
    monkeypatch.setattr(benchmark, "SUITES", suites)
    models = ("toy_models:brightness_of", "toy_models:brightness_network")
    config = BenchmarkConfig(suite="quick", shuffles=0)
    report = measured(data, tmp_path / "out", models, config)
    assert report["models"][models[0]]["threats"] is None
    found = report["models"][models[1]]["threats"]
    assert found["videos"] == 4
    assert 0 <= found["models"]["linf-8-quick"]["robust_accuracy"] <= 1
    assert {alarm["name"] for alarm in found["alarms"]} >= {"logit scale", "random beats gradient"}
    assert found["reliable"] == (not any(alarm["fired"] for alarm in found["alarms"]))
    assert "linf-8-quick" in render(report)
    with pytest.raises(UserError, match="suite"):
        BenchmarkConfig(suite="huge")


def test_noise_at_the_source_is_weaker_at_the_model_than_noise_at_the_model(
    data: DatasetIndex,
) -> None:
    preprocess = load_candidate("toy_models:brightness_network", data.class_names).preprocess
    small = replace(preprocess, image_size=32)
    sample = next(sample for sample in data.samples if "broken" not in sample.path.name)
    change = corruption("gaussian_noise", 3)
    size = {}
    for at in ("model", "source", 64):
        video = shown.decode_video("name", sample, [small], at=at, max_frames=8)
        (clean,) = shown.clean_clips(video)
        (noisy,) = shown.changed_clips(video, change, seed=0)
        pair = [shown.model_pixels(clip, small, at=at).float() for clip in (clean, noisy)]
        assert pair[0].shape[-2:] == (32, 32)
        size[at] = (pair[1] - pair[0]).square().mean().sqrt()
    assert size["model"] > 1.5 * size[64]
    assert size["model"] > 1.5 * size["source"]
    with pytest.raises(UserError, match="'model', 'source' or a side"):
        shown.view_of(small, "screen")


def test_a_pose_model_is_shown_changed_frames_and_may_find_nobody(data: DatasetIndex) -> None:
    class Light:
        """Takes a bright picture for class 1, and sees nobody in a dark one."""

        finder = None
        class_names = data.class_names

        def answer(self, level: float, labels: object = None) -> SimpleNamespace:
            probabilities = torch.tensor([0.1, 0.9])
            return SimpleNamespace(somebody=level > 60, probabilities=probabilities)

    candidate = PoseCandidate(
        name="light",
        predictor=Light(),  # type: ignore[arg-type]
        data_class_of=torch.tensor([0, 1]),
        by_meaning=None,
    )
    sample = next(sample for sample in data.samples if "broken" not in sample.path.name)
    config = BenchmarkConfig(corruptions=("brightness",), severities=(5,), shuffles=2)

    def level(clip: Any, finder: object) -> float:
        assert list(clip.frame_seconds) == sorted(clip.frame_seconds)
        return float(clip.frames.float().mean())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pose_candidates, "poses_of_frames", level)
        found = benchmark.measure_video("name", sample, 0, [candidate], config)
    answers = found["models"][0]["answers"]
    assert set(answers) == {"clean", "brightness/5"}
    assert answers["brightness/5"][0] == 1
    assert {answer[0] for answer in answers.values()} <= {-1, 1}
