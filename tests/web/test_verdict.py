"""The headline says what the answer amounts to."""

from __future__ import annotations

import pytest

from marey.web.verdict import percent, verdict

SURE = [("cartwheel", 0.94), ("jump", 0.04)]
CALIBRATED = {"calibrated": True, "unknown": False}


@pytest.mark.parametrize(
    ("predictions", "trust", "kind", "headline"),
    [
        (SURE, CALIBRATED, "sure", "Cartwheel, 94 %"),
        (SURE, CALIBRATED | {"set": ["cartwheel"]}, "sure", "Cartwheel, 94 %"),
        (SURE, {"calibrated": False, "unknown": None}, "sure", "Cartwheel, 94 %"),
        (SURE, {"unknown": True, "set": []}, "unknown", "Unknown: not one of my 15 actions"),
        (
            [("push", 0.55), ("punch", 0.4)],
            CALIBRATED | {"set": ["push", "punch"]},
            "unsure",
            "Unsure: push or punch",
        ),
        (
            SURE,
            CALIBRATED | {"set": ["a_b", "c", "d"]},
            "unsure",
            "Unsure: a b, c or d",
        ),
        (
            SURE,
            CALIBRATED | {"set": ["kick, punch or push", "hug"]},
            "unsure",
            "Unsure: “kick, punch or push” or “hug”",
        ),
        (SURE, CALIBRATED | {"set": list("abcdef")}, "unsure", "Unsure: one of 6 actions"),
        ([("push", 0.45), ("punch", 0.4)], CALIBRATED, "unsure", "Unsure: push or punch"),
        ([], {}, "nobody", "Nobody found"),
    ],
)
def test_headlines(predictions, trust, kind: str, headline: str) -> None:
    said = verdict(predictions, trust, 15)
    assert (said.kind, said.headline) == (kind, headline)
    assert said.advice.endswith(".")


def test_an_answer_that_is_held_back_is_unsure_and_says_what_was_measured() -> None:
    rejection = {"threshold": 0.96, "accuracy": 0.95, "num_videos": 60}
    said = verdict(SURE, CALIBRATED | {"rejected": True, "rejection": rejection}, 15)
    assert (said.kind, said.headline) == ("unsure", "Unsure: cartwheel or jump")
    assert "Below 96 %" in said.advice
    assert "95 % of 60 measured videos" in said.advice
    assert verdict(SURE, {"rejected": False, "rejection": rejection}, 15).kind == "sure"


def test_an_unmeasured_percentage_is_not_called_measured() -> None:
    assert "measured on videos the model had not seen" in verdict(SURE, CALIBRATED, 15).advice
    assert "not measured" in verdict(SURE, {"calibrated": False, "unknown": False}, 15).advice
    assert "Nobody has measured" in verdict(SURE, {"calibrated": False}, 15).advice


def test_nobody_found_is_said_whatever_the_probability() -> None:
    assert verdict([("no person", 1.0)], {}, 1, nobody=True).kind == "nobody"


def test_no_percentage_is_certain() -> None:
    assert percent(1.0) == "99 %"
    assert percent(0.0) == "1 %"
