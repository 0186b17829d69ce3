"""The benchmark on labelled windows of real video: intervals, and what counts as right."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.real_people import (
    LABELS,
    SAME,
    Row,
    compare,
    interval,
    separation,
    summary,
    truth_of,
)
from marey.errors import UserError
from marey.inference.prediction import NO_PERSON
from marey.synthetic.poses.vocabulary import OTHER, VOCABULARY


def row(label: str, truth: str, answer: str, guess: str | None = None) -> Row:
    window = {"label": label, "dataset": "clips", "path": f"{label}.mp4"}
    return Row(window=window, truth=truth, answer=answer, first_guess=guess or answer)


def test_intervals_of_clopper_and_pearson_from_their_tables():
    assert interval(0, 10) == pytest.approx([0.0, 0.3085], abs=1e-4)
    assert interval(10, 10) == pytest.approx([0.6915, 1.0], abs=1e-4)
    assert interval(5, 10) == pytest.approx([0.1871, 0.8129], abs=1e-4)
    assert interval(0, 0) == [0.0, 1.0]


def test_a_label_outside_the_vocabulary_should_be_unknown():
    assert truth_of("walk", ["walk"]) == "walk"
    assert truth_of("mop", ["walk"]) == "unknown"
    assert truth_of("handshake", ["shake hands"]) == "shake hands"
    assert truth_of("no person", ["walk"]) == NO_PERSON


def test_unknown_for_a_known_action_is_wrong_and_the_guess_is_reported_beside_it():
    rows = [
        row("walk", "walk", "unknown", "walk"),
        row("walk", "walk", "walk"),
        row("mop", "unknown", "unknown", "walk"),
        row("no person", NO_PERSON, "walk"),
    ]
    found = summary(rows)
    assert found["known_actions"]["right"] == 1
    assert found["known_actions_first_guess"]["right"] == 2
    assert found["unknown_recognised"]["share"] == 1.0
    assert found["no_person"]["right"] == 0


def test_how_often_sets_hold_the_answer_is_counted_over_known_actions():
    inside, outside = (
        Row(
            window={"label": "walk", "dataset": "clips", "path": "walk.mp4"},
            truth="walk",
            answer="run",
            first_guess="run",
            labels_of_90=("run", "walk"),
        ),
        Row(
            window={"label": "walk", "dataset": "clips", "path": "walk.mp4"},
            truth="walk",
            answer=NO_PERSON,
            first_guess=NO_PERSON,
            labels_of_90=(),
        ),
    )
    found = summary([inside, outside, row("mop", "unknown", "unknown")])["sets_of_90"]
    assert (found["n"], found["hold_the_answer"], found["mean_size"]) == (2, 1, 1.0)


def test_two_models_are_compared_window_by_window():
    now = [
        row("walk", "walk", "walk"),
        row("run", "run", "unknown", "run"),
        row("mop", "unknown", "walk"),
    ]
    answers = (("unknown", "walk"), ("run", "run"), ("unknown", "walk"))
    before = [
        {**new.window, "truth": new.truth, "answer": answer, "guess": guess}
        for new, (answer, guess) in zip(now, answers, strict=True)
    ]
    found = compare(now, before)
    assert found["known_actions"] == {"before": 1, "now": 1, "won": 1, "lost": 1, "p": 1.0}
    assert found["known_actions_first_guess"]["won"] == 0
    assert found["unknown_recognised"] == {"before": 1, "now": 0, "won": 0, "lost": 1, "p": 1.0}
    assert found["all_windows"]["before"] == 2
    with pytest.raises(UserError, match="other windows"):
        compare(now[:2], before)


def test_unknown_is_told_from_known_without_a_limit():
    def scored(label: str, truth: str, score: float) -> Row:
        return replace(row(label, truth, "walk"), unknown_score=score)

    rows = [scored(f"{n}", "walk", n / 10) for n in range(8)]
    rows += [scored(f"other {n}", "unknown", 0.65 + n / 10) for n in range(8)]
    found = separation(rows)
    assert found["n"] == [8, 8]
    assert found["auroc"] == pytest.approx(1 - 1 / 64, abs=1e-4)
    assert found["interval"][0] > 0.85
    gain = separation(rows, [0.0] * 16)
    assert gain["auroc_gain"] == pytest.approx(0.5 - 1 / 64, abs=1e-4)
    assert separation(rows, [r.unknown_score for r in rows])["interval"] == [0, 0]
    few = [replace(r, scene=f"scene {number % 4}") for number, r in enumerate(rows)]
    assert (found["scenes"], separation(few)["scenes"]) == (16, 4)
    assert separation(few)["auroc"] == found["auroc"]


def test_the_committed_labels_are_whole_and_their_spellings_are_in_the_vocabulary():
    windows = json.loads(LABELS.read_text())["windows"]
    counts = {
        name: sum(w["dataset"] == name for w in windows)
        for name in ("ut_interaction", "surv_fight", "clips")
    }
    assert counts == {"ut_interaction": 60, "surv_fight": 60, "clips": 9}
    assert set(SAME.values()) <= set(VOCABULARY)
    assert OTHER not in {w["label"] for w in windows}
