"""The page that explains one answer, and its small figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marey.errors import UserError
from marey.explain.report import (
    background_share,
    bars,
    caution,
    explain_video,
    geometry_of_source,
    matrix,
    title_of,
)
from marey.inference.predictor import Predictor
from marey.persons.nanodet import NanoDetPersons
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip


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
    predictor = Predictor.load(str(tiny_checkpoint))
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
    predictor = Predictor.load(str(tiny_checkpoint))
    facts = [
        explain_video(predictor, day_and_night, tmp_path / label, label=label)
        for label in ("bright", "dark")
    ]
    assert facts[0]["probability"] + facts[1]["probability"] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(UserError, match="unknown label 'dusk'"):
        explain_video(predictor, day_and_night, tmp_path / "a", label="dusk")
    with pytest.raises(UserError, match="unknown map 'gradcam'"):
        explain_video(predictor, day_and_night, tmp_path / "b", kind="gradcam")


def test_why_is_not_asked_of_an_answer_that_was_not_given() -> None:
    assert title_of("run", 0.62) == "Why “run”?"
    assert title_of("run", 0.004) == "What speaks for “run” (below 1%)?"


def test_frames_are_shown_in_the_model_s_crop_at_the_size_of_the_source() -> None:
    preprocess = Preprocess(short_side=128, image_size=112)
    large = Clip(
        frames=torch.zeros(2, 3, 480, 640, dtype=torch.uint8),
        frame_indices=(0, 1),
        frame_seconds=(0.0, 0.1),
        fps=10,
        path="x",
    )
    shown = geometry_of_source(preprocess, large)
    assert (shown.short_side, shown.image_size) == (480, 420)
    small = replace(large, frames=large.frames[..., :90, :100])
    assert geometry_of_source(preprocess, small) == preprocess


def test_a_map_that_glows_beside_the_people_is_cautioned_against(draw) -> None:
    frames = torch.stack([draw([(250, 60, 280)], size=(360, 640))] * 2)
    relevance = torch.zeros(2, 9, 16)
    relevance[:, :, 0] = 1.0  # the left edge
    beside = background_share(relevance, frames)
    assert beside == pytest.approx(1.0)
    assert caution(beside) is not None
    boxes, _ = NanoDetPersons()(frames[0], "", 0.0)
    x, y = ((boxes[0, :2] + boxes[0, 2:]) / 2).tolist()
    within = torch.zeros(2, 9, 16)
    within[:, int(y * 9), int(x * 16)] = 1.0
    on = background_share(within, frames)
    assert on == pytest.approx(0.0)
    assert caution(on) is None
    assert background_share(relevance, torch.zeros_like(frames)) is None
