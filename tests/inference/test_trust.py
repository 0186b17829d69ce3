"""Trust in the answer to a video: fitted, too few, damaged, and logits that are no numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.evaluation.trust import fit_trust_of_answers
from marey.inference.answers import Answers
from marey.inference.predictor import Predictor


def predictor_of(checkpoint: Any, folder: Path, calibration: Any, tensors: Any) -> Predictor:
    save_checkpoint(
        folder,
        checkpoint.model,
        class_names=checkpoint.class_names,
        preprocess=checkpoint.preprocess,
        calibration=calibration,
        tensors=tensors,
    )
    loaded = Predictor.load(folder)
    assert isinstance(loaded, Predictor)
    return loaded


def answers_of(checkpoint: Any, num_groups: int) -> Answers:
    """Answers of the tiny model to noisy bright and dark clips, four of each group."""
    generator = torch.Generator().manual_seed(0)
    labels = ["bright", "dark"] * (2 * num_groups)
    level = torch.tensor([2.0 if label == "bright" else -2.0 for label in labels])
    clips = level[:, None, None, None, None] + torch.randn(
        len(labels), 4, 3, 32, 32, generator=generator
    )
    with torch.no_grad():
        found = checkpoint.model(clips)
    return Answers(
        model="tiny",
        class_names=list(checkpoint.class_names),
        videos=[str(row) for row in range(len(labels))],
        labels=list(labels),
        groups=[f"group {row // 4}" for row in range(len(labels))],
        outputs={name: found[name][:, None] for name in ("logits", "embedding")},
    )


def test_trust_goes_from_answers_through_the_checkpoint_to_the_prediction(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    fitted = fit_trust_of_answers(answers_of(checkpoint, 12))
    prediction = predictor_of(checkpoint, tmp_path / "fitted", *fitted)(day_and_night)
    trust = json.loads(json.dumps(prediction.to_dict()))["trust"]
    assert trust["unknown"] in (True, False)
    assert (trust["reason"] is None) == (not trust["unknown"])
    assert trust.get("set") == (None if trust["unknown"] else prediction.set())
    calibration, tensors = fitted
    calibration["trust"]["unknown"] |= {"near_threshold": 1e9, "far_threshold": 1e9}
    known = predictor_of(checkpoint, tmp_path / "known", calibration, tensors)(day_and_night)
    assert known.trust["set"] == known.set()
    assert prediction.top(1)[0][0] in prediction.set(coverage=0.95)
    with pytest.raises(UserError, match=r"no prediction sets of coverage 0\.5"):
        prediction.set(coverage=0.5)


def test_too_few_videos_are_said_in_the_answer(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    fitted = fit_trust_of_answers(answers_of(checkpoint, 3))
    prediction = predictor_of(checkpoint, tmp_path / "few", *fitted)(day_and_night)
    assert prediction.trust["not_calibrated"].startswith("not calibrated: 12 videos")
    assert prediction.trust["calibrated"] is False
    assert prediction.trust["unknown"] is None
    assert "set" not in prediction.trust


def test_damaged_trust_data_answers_without_trust_and_says_so(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    calibration, tensors = fit_trust_of_answers(answers_of(checkpoint, 12))
    del tensors["trust_axes"]
    prediction = predictor_of(checkpoint, tmp_path / "broken", calibration, tensors)(day_and_night)
    assert "damaged" in prediction.trust["damaged"]
    assert prediction.trust["calibrated"] is False
    assert prediction.trust["unknown"] is None
    assert "set" not in prediction.trust
    assert len(prediction.top(2)) == 2


def test_nan_logits_are_an_error(
    tiny_checkpoint: Path, day_and_night: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint, tmp_path / "nan")
    predictor = Predictor.load(tmp_path / "nan")
    assert isinstance(predictor, Predictor)
    with torch.no_grad():
        predictor.model.head.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN or infinite logits"):
        predictor(day_and_night)


def test_a_label_that_is_no_class_is_an_error(tiny_checkpoint: Path) -> None:
    answers = answers_of(load_checkpoint(tiny_checkpoint), 12)
    answers.labels[0] = "dusk"
    with pytest.raises(UserError, match="no class of tiny: dusk"):
        fit_trust_of_answers(answers)
