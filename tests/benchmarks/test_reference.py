"""The script that records numbers and compares them later: what it must notice, and what not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.reference as module

    return module


def test_outputs_may_differ_by_a_millionth_and_no_more(reference: Any) -> None:
    before = torch.tensor([1.0, 2.0, math.nan], dtype=torch.float64)
    assert reference.compare_tensors(before, before.clone()) == (0.0, "")
    assert reference.compare_tensors(before, before + 9e-7)[1] == ""
    assert reference.compare_tensors(before, before + 2e-6)[1] == "differs by 2.0e-06"
    assert reference.compare_tensors(before, before.nan_to_num(0.0))[0] == math.inf
    assert "became" in reference.compare_tensors(before, before[:2])[1]


def test_losses_may_differ_by_a_millionth_of_their_value(reference: Any) -> None:
    before = {"train 1 loss": 400.0, "train 2 loss": 0.0}
    assert reference.compare_values(before, {**before, "train 1 loss": 400.0003})[1] == ""
    assert (
        "train 1 loss" in reference.compare_values(before, {**before, "train 1 loss": 400.001})[1]
    )
    assert "train 2 loss" in reference.compare_values(before, {**before, "train 2 loss": 1e-9})[1]
    assert "became None" in reference.compare_values(before, {"train 1 loss": 400.0})[1]
    assert "now fails: E" in reference.compare_values(before, {"error": "E"})[1]


def test_what_failed_when_recorded_cannot_differ_but_what_is_gone_does(reference: Any) -> None:
    recorded = {"recipe": {"error": "E"}, "frames": [1, 2], "digest": "a"}
    now = {"recipe": {"train 1 loss": 1.0}, "frames": [1, 3], "new": 1}
    assert reference.compare_items(recorded, now)[1] == [
        "frames: [1, 2] became [1, 3]",
        "digest: no longer there",
    ]


def test_weights_follow_from_names_not_from_the_order_of_construction(reference: Any) -> None:
    first = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.BatchNorm1d(2)})
    second = nn.ModuleDict({"b": nn.BatchNorm1d(2), "a": nn.Linear(3, 2)})
    for model in (first, second):
        reference.fill(model)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert bool((first["b"].running_var > 0).all())


def test_a_changed_frame_is_named(
    reference: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference.record(tmp_path, ["indices"])
    assert reference.compare(tmp_path, ["indices"])
    assert capsys.readouterr().out.endswith("same\n")

    stored = json.loads((tmp_path / "indices.json").read_text())
    stored["items"]["equidistant, loop, 8 of 37"]["evaluation, 30.0 fps"][3] += 1
    (tmp_path / "indices.json").write_text(json.dumps(stored))
    assert not reference.compare(tmp_path, ["indices"])
    said = capsys.readouterr().out
    assert "1 DIFFER\n    equidistant, loop, 8 of 37: evaluation, 30.0 fps: [0, 5," in said
