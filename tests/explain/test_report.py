"""The page that explains one answer, and its small figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from marey.errors import UserError
from marey.explain.report import bars, explain_video, matrix
from marey.inference.load import load_clip_predictor


def test_bars_grow_with_their_values_and_negative_ones_are_red() -> None:
    drawn = bars([1.0, -0.5, 0.25], ["a", "b", "<c>"])
    heights = [float(height) for height in re.findall(r"<rect[^>]*height='([\d.]+)'", drawn)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)
    assert heights[0] == pytest.approx(4 * heights[2], abs=0.4)
    assert re.findall(r"fill='(#[0-9a-f]{6})'", drawn.split("<line")[1]) == [
        "#2e86c1",
        "#c0392b",
        "#2e86c1",
    ]
    assert "&lt;c&gt;" in drawn


def test_a_matrix_frames_the_steps_of_its_path() -> None:
    values = [[0.0, 1.0, -1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    drawn = matrix(values, path=[0, 2, 1])
    assert drawn.count("stroke-width='2.5'") == 2
    assert drawn.count("<rect") == 9
    assert matrix(values).count("stroke-width='2.5'") == 0


def test_an_explanation_is_written_as_page_pictures_and_numbers(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    predictor = load_clip_predictor(str(tiny_checkpoint))
    facts = explain_video(predictor, day_and_night, tmp_path / "out")
    assert facts["label"] in ("bright", "dark")
    assert facts["map"] == "rollout"
    assert len(facts["frame_importance"]) == len(facts["frame_seconds"]) == 4
    assert json.loads((tmp_path / "out" / "explanation.json").read_text()) == facts
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Importance of the frames" in page
    assert page.count("data:image/png;base64") == 2
    for name in ("frames.png", "attention.png", "overlay.mp4"):
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_another_label_is_explained_on_request_and_unknown_ones_are_named(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    predictor = load_clip_predictor(str(tiny_checkpoint))
    facts = [
        explain_video(predictor, day_and_night, tmp_path / label, label=label)
        for label in ("bright", "dark")
    ]
    assert facts[0]["probability"] + facts[1]["probability"] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(UserError, match="unknown label 'dusk'"):
        explain_video(predictor, day_and_night, tmp_path / "a", label="dusk")
    with pytest.raises(UserError, match="unknown map 'gradcam'"):
        explain_video(predictor, day_and_night, tmp_path / "b", kind="gradcam")
