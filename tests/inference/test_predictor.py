"""From a file to an answer, and the parts of its trust."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import marey
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError, VideoError
from marey.inference.predictor import Predictor, predict_many, videos_in
from marey.video.decode import open_video


def test_the_answer_is_the_mean_over_views_of_calibrated_probabilities(
    tiny_checkpoint: Path, day_and_night: Path
) -> None:
    predictor = Predictor.load(tiny_checkpoint, views=2)
    prediction = predictor(day_and_night)
    with open_video(day_and_night) as reader:
        views, _ = predictor.preprocess.views(reader, num_temporal=2)
    expected = (load_checkpoint(tiny_checkpoint).model(views)["logits"] / 2.0).softmax(-1).mean(0)
    assert torch.allclose(prediction.probabilities, expected, atol=1e-6)
    assert prediction.top(5)[0][1] == pytest.approx(float(expected.max()), abs=1e-6)
    assert len(prediction.top(5)) == 2
    assert list(prediction.frame_seconds) == sorted(set(prediction.frame_seconds))


def test_agreement_is_the_share_of_views_with_the_answer(
    tiny_checkpoint: Path, day_and_night: Path
) -> None:
    predictor = Predictor.load(tiny_checkpoint)
    views = torch.stack([torch.full((4, 3, 32, 32), value) for value in (2.0, 2.0, -2.0)])
    prediction = predictor._answer("x", predictor.outputs(views), (), None)
    assert prediction.top(1)[0][0] == "bright"
    assert prediction.trust["agreement"] == pytest.approx(2 / 3, abs=1e-4)
    assert prediction.trust["unknown"] is None  # this checkpoint has no out-of-distribution model


def test_the_json_entry_has_the_documented_keys(tiny_checkpoint: Path, day_and_night: Path) -> None:
    entry = marey.Predictor.load(tiny_checkpoint)(day_and_night).to_dict()
    assert list(entry) == ["video", "headline", "predictions", "frame_seconds", "trust", "error"]
    assert entry["error"] is None
    assert sum(answer["probability"] for answer in entry["predictions"]) == pytest.approx(
        1, abs=1e-4
    )


def test_unreadable_videos_are_named_and_the_others_answered(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video")
    predictor = Predictor.load(tiny_checkpoint)
    (first, _), (second, entry) = predict_many(predictor, [day_and_night, bad])
    assert first is not None
    assert second is None
    assert entry["error"].startswith(str(bad))
    assert entry["predictions"] == []


def test_folders_mean_the_videos_below_them(tmp_path: Path) -> None:
    for name in ("b.mp4", "sub/a.avi", "frames/0001.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in videos_in([tmp_path])]
    assert sorted(found) == ["b.mp4", "frames", "sub/a.avi"]
    assert videos_in([tmp_path / "frames"]) == [tmp_path / "frames"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no videos in this folder"):
        videos_in([tmp_path / "empty"])


def test_mistakes_are_named(tiny_checkpoint: Path, day_and_night: Path) -> None:
    predictor = Predictor.load(tiny_checkpoint)
    with pytest.raises(UserError, match="trust 'much' is neither 'basic' nor 'full'"):
        predictor(day_and_night, trust="much")
    with pytest.raises(UserError, match="has no label-embedding head"):
        predictor(day_and_night, labels=["run", "eat"])
    with pytest.raises(VideoError, match="lasts 8 s, the limit is 5 s"):
        predictor(day_and_night, max_seconds=5)
    with pytest.raises(UserError, match="no such checkpoint folder"):
        Predictor.load("no/such/model")
