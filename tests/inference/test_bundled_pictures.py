"""What the bundled picture model says of the three examples, as users ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marey.inference.predictor import Predictor
from marey.web.verdict import SURE, UNSURE, verdict

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("video", "label", "kind"),
    [
        ("cartwheel", "cartwheel", SURE),
        ("spin_kick", "spin kick", SURE),
        ("walk", "walk", UNSURE),
    ],
)
def test_the_set_of_every_example_holds_its_action_and_a_wrong_guess_is_unsure(
    video: str, label: str, kind: str
) -> None:
    predictor: Any = Predictor.load("marey-mini-rgb")
    prediction = predictor(EXAMPLES / f"{video}.mp4")
    assert label in prediction.set(coverage=0.9)
    assert prediction.trust["unknown"] is False
    said = verdict(prediction.top(5), prediction.trust, len(prediction.class_names))
    assert said.kind == kind
    assert (prediction.top(1)[0][0] == label) == (kind == SURE)
