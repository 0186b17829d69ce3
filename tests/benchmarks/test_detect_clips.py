"""How answers about real clips are compared with labels written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marey.inference.detector import Detections, Moment, Person

ROOT = Path(__file__).parents[2]
LEFT, RIGHT, SMALL = (0.1, 0.1, 0.3, 0.9), (0.6, 0.1, 0.8, 0.9), (0.45, 0.1, 0.5, 0.2)


@pytest.fixture
def detect_clips(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.detect_clips as module

    return module


def person(track: int, box: tuple[float, ...], walks: float = 0.9, unknown: bool = False) -> Person:
    probabilities = (walks, 1 - walks)
    return Person(
        track=track,
        box_xyxy_norm=box,  # type: ignore[arg-type]
        score=0.9,
        probabilities=probabilities,
        unknown=unknown,
    )


def detections(*moments: tuple[Person, ...]) -> Detections:
    return Detections(
        video="clip.mp4",
        width=100,
        height=100,
        class_names=("walk", "run"),
        moments=tuple(
            Moment(seconds=i + 0.5, frame_index=i, persons=persons)
            for i, persons in enumerate(moments)
        ),
    )


def label(who: str, box: tuple[float, ...], *does: str) -> dict[str, Any]:
    return {"who": who, "box": list(box), "does": list(does)}


def test_boxes_tracks_and_unknown_actions_are_counted(detect_clips: Any) -> None:
    found = detections(
        (person(1, LEFT), person(2, RIGHT, unknown=True)),
        (person(2, LEFT), person(3, (0.4, 0.5, 0.5, 0.95))),
    )
    labels = {
        "action": "dance",
        "moments": {
            "0.5": {"persons": [label("A", LEFT, "walk"), label("B", RIGHT)]},
            "1.5": {"persons": [label("A", LEFT, "run"), label("B", RIGHT)]},
        },
    }
    judged = detect_clips.judge(found, labels)
    assert judged["boxes"] == {"right": 3, "missed": 1, "false": 1}
    assert judged["tracks"] == {
        "persons": 2,
        "steps": 1,
        "steps_with_the_same_number": 0,
        "numbers_of_two_persons": 1,
    }
    assert judged["verdicts"] == {
        "known action, right": 1,
        "known action, wrong": 1,
        "other action, said unknown": 1,
    }


def test_small_persons_and_ignored_regions_count_neither_way(detect_clips: Any) -> None:
    found = detections((person(1, SMALL), person(2, RIGHT)))
    labels = {
        "action": "",
        "moments": {"0.5": {"persons": [label("A", SMALL)], "ignore": [[0.5, 0, 1, 1]]}},
    }
    judged = detect_clips.judge(found, labels)
    assert judged["boxes"] == {"right": 0, "missed": 0, "false": 0}
    assert judged["verdicts"] == {}


def test_labels_of_other_key_frames_are_refused(detect_clips: Any) -> None:
    with pytest.raises(ValueError, match="label the clip anew"):
        detect_clips.judge(
            detections((person(1, LEFT),)), {"action": "", "moments": {"9.0": {"persons": []}}}
        )


def test_the_stored_labels_name_actions_of_the_model() -> None:
    from marey.inference.load import load_detector

    known = set(load_detector("marey-mini").class_names)
    labels = json.loads((ROOT / "results" / "detect_clips_labels.json").read_text())["clips"]
    assert len(labels) == 9
    for clip in labels.values():
        for moment in clip["moments"].values():
            for one in moment["persons"]:
                assert set(one["does"]) <= known
                x1, y1, x2, y2 = one["box"]
                assert 0 <= x1 < x2 <= 1
                assert 0 <= y1 < y2 <= 1
