"""The step from training runs to the bundled pose model, on a few scenes."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import pose_choices, pose_model
from benchmarks.pose_model import average_weights, main
from benchmarks.real_people import Row
from marey.checkpoints.load import load_checkpoint
from marey.evaluation.poses import held_out_scenes
from marey.synthetic.poses.vocabulary import OTHER


def test_the_mean_of_weights_leaves_out_what_one_model_lacks():
    one, two = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1, bias=False)
    before = one.bias.detach().clone()
    mean = (one.weight + two.weight).detach() / 2
    average_weights(one, [one, two])
    torch.testing.assert_close(one.weight.detach(), mean)
    torch.testing.assert_close(one.bias.detach(), before)


def few_scenes(monkeypatch):
    """Scenes of four classes; those with modelled errors stand in for filmed ones, which take a
    second each."""
    monkeypatch.setattr(pose_model, "VOCABULARY", ["walk", "bend", "kick", OTHER])
    monkeypatch.setattr(
        pose_model, "filmed_scenes", lambda *words, finder, folder: held_out_scenes(*words)
    )


@pytest.mark.slow
def test_a_model_is_fitted_measured_and_stored(shared_dir, tmp_path, monkeypatch):
    cmu = shared_dir / "data" / "cmu_mocap"
    if not cmu.is_dir():
        pytest.skip("needs the CMU recordings in ../shared/data")
    words = ["pose_model", "marey-mini", "--cmu", str(cmu), "--scenes", "40", "--filmed", "40"]
    words += ["--tracks", str(tmp_path / "tracks"), "--store", str(tmp_path / "stored")]
    few_scenes(monkeypatch)
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "result.json")])
    main()
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["test"]["known"]["n"] + found["test"]["unknown"]["n"] == 40
    assert found["test_filmed"] == found["test"]
    assert found["command"].startswith("python -m benchmarks.pose_model marey-mini --cmu cmu_mocap")
    stored = load_checkpoint(tmp_path / "stored")
    assert stored.calibration == found["calibration"]


@pytest.mark.slow
def test_candidates_are_compared_with_the_first(shared_dir, tmp_path, monkeypatch):
    cmu = shared_dir / "data" / "cmu_mocap"
    if not cmu.is_dir():
        pytest.skip("needs the CMU recordings in ../shared/data")
    windows = [
        {"path": f"{number}.avi", "dataset": "clips", "label": label}
        for number, label in enumerate(("walk", "knit", "walk", "sew"))
    ]

    def asked(predictor, windows, *folders):
        assert predictor.checkpoint.calibration["unknown"]["threshold"] > 0
        for number, window in enumerate(windows):
            truth = "walk" if window["label"] == "walk" else "unknown"
            yield Row(
                window=window,
                truth=truth,
                answer="walk",
                first_guess="walk",
                unknown_score=float(number % 2),
            )

    few_scenes(monkeypatch)
    monkeypatch.setattr(pose_choices, "ask_poses", asked)
    monkeypatch.setattr(pose_choices, "read_json", lambda path: {"windows": windows})
    words = ["pose_choices", "before=marey-mini", "mean=marey-mini,marey-mini", "--cmu", str(cmu)]
    words += ["--filmed", "40", "--tracks", str(tmp_path / "tracks")]
    words += ["--poses", str(tmp_path / "poses"), "--out", str(tmp_path / "new.json")]
    monkeypatch.setattr("sys.argv", words)
    pose_choices.main()
    found = json.loads((tmp_path / "new.json").read_text())["candidates"]
    assert found["before"]["known_actions"]["share"] == 1.0
    assert found["before"]["unknown_against_known"]["auroc"] == 1.0
    assert found["mean"]["models"] == 2
    assert found["mean"]["compared_with_the_first"]["unknown_against_known"]["auroc_gain"] == 0
