"""The overview of a robustness report, and two reports side by side."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from marey.errors import UserError
from marey.evaluation.robustness_compare import compare_reports, comparison_text
from marey.evaluation.robustness_compare_page import comparison_csv, comparison_page
from marey.evaluation.robustness_overview import overview_cards, ranked, report_csv


def model(accuracy: float, right: list[int]) -> dict[str, Any]:
    alarm = {"name": "logit scale", "fired": False, "says": "PGD wins 6% instead of 75%"}
    return {
        "clean_accuracy": accuracy,
        "clean_interval": [accuracy - 0.1, accuracy + 0.1],
        "clean_calibration_error": 0.1,
        "clean_calibration_floor": 0.2,
        "corrupted_calibration_error": 0.3,
        "mpc": accuracy - 0.1,
        "mpc_interval": [accuracy - 0.2, accuracy],
        "kinds": {"fog": {"accuracy": {"3": accuracy - 0.1}, "mean_accuracy": accuracy - 0.1}},
        "categories": {"weather": {"mean_accuracy": accuracy - 0.1}},
        "attacks": {},
        "threats": {
            "videos": 4,
            "reliable": True,
            "alarms": [alarm],
            "models": {"linf-8": {"robust_accuracy": 0.25, "robust_interval": [0.1, 0.5]}},
        },
        "order": {"order_reliance": 0.02, "order_reliance_interval": [-0.1, 0.1]},
        "right_by_video": {"clean": right, "corrupted": [value / 2 for value in right]},
    }


def report() -> dict[str, Any]:
    def pair(a: str, b: str, difference: float, p: float) -> dict[str, Any]:
        return {"a": a, "b": b, "corrupted": {"difference": difference, "p": p}, "clean": {}}

    return {
        "videos": 4,
        "names_of_videos": ["a", "b", "c", "d"],
        "group_of_video": [None] * 4,
        "settings": {"corruptions": ["fog"], "profile": "rose", "at": "model"},
        "models": {
            "weak": model(0.5, [1, 1, 0, 0]),
            "good": model(0.9, [1, 1, 1, 1]),
            "same": model(0.88, [1, 1, 1, 0]),
        },
        "pairs": [
            pair("weak", "good", 0.4, 0.001),
            pair("weak", "same", 0.38, 0.002),
            pair("good", "same", -0.02, 0.6),
        ],
    }


def test_models_that_cannot_be_told_apart_share_a_rank() -> None:
    assert ranked(report()) == [("good", "1="), ("same", "1="), ("weak", "3")]


def test_a_card_says_what_it_measured_on_how_many_videos_and_warns_of_masking() -> None:
    found = report()
    names = {name: name for name in found["models"]}
    page = overview_cards(found, names)
    assert page.index("good") < page.index("weak")
    assert page.count("n = 4") == 3 * 8
    assert "UNRELIABLE" not in page
    threats = found["models"]["weak"]["threats"]
    threats["reliable"] = False
    threats["alarms"][0]["fired"] = True
    page = overview_cards(found, names)
    assert page.count("UNRELIABLE") == 1
    assert "6% instead of 75%" in page


def test_the_csv_has_a_row_for_every_number() -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(report()))))
    (clean,) = [row for row in rows if row["model"] == "weak" and row["what"] == "clean"]
    assert (clean["value"], clean["low"], clean["high"], clean["videos"]) == (
        "0.5",
        "0.4",
        "0.6",
        "4",
    )
    assert [row["value"] for row in rows if row["what"] == "corrupted: fog 3"] == [
        "0.8",
        "0.78",
        "0.4",
    ]


def test_two_reports_are_compared_on_shared_videos(tmp_path: Path) -> None:
    a, b = report(), copy.deepcopy(report())
    b["names_of_videos"] = ["d", "c", "b", "e"]
    b["settings"]["at"] = "source"
    b["models"]["weak"]["right_by_video"] = {"clean": [1, 1, 1, 0], "corrupted": [1, 1, 1, 0]}
    del b["models"]["good"]
    for name, found in (("a.json", a), ("b.json", b)):
        (tmp_path / name).write_text(json.dumps(found))
    result = compare_reports(tmp_path / "a.json", tmp_path / "b.json")
    assert (result["videos"], result["only_a"], result["only_b"]) == (3, 1, 1)
    assert result["differing_settings"] == {"at": ["model", "source"]}
    weak = next(found for found in result["models"] if found["a"] == "weak")
    # Videos b, c, d: A has 1, 0, 0 right, B all three.
    assert weak["clean"]["difference"] == pytest.approx(2 / 3)
    assert weak["corrupted"]["a"] == pytest.approx(0.5 / 3)
    text = comparison_text(result)
    assert "NOT ALIKE: at is model in A and source in B" in text
    assert "B - A = +66.7 points" in text

    page = comparison_page(result)
    assert "n&nbsp;= 3 videos that both measured; 1 only in A and 1 only in B are left out" in page
    assert "Not alike: at is model in A and source in B." in page
    assert "<td>33.3</td><td>100.0</td><td>+66.7<br><small>[" in page
    rows = list(csv.DictReader(io.StringIO(comparison_csv(result))))
    clean = next(row for row in rows if row["what"] == "clean")
    assert clean["videos"] == "3"
    assert float(clean["difference"]) == pytest.approx(2 / 3)

    same = compare_reports(tmp_path / "a.json", tmp_path / "a.json")
    assert all(found["clean"]["difference"] == 0 for found in same["models"])
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(UserError, match="no report"):
        compare_reports(tmp_path / "a.json", tmp_path / "c.json")
