"""The robustness study on features whose answer is known: a signal, a corruption that hides it, and
noise where nothing can be learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import robustness_heads as heads
from benchmarks import robustness_study as study
from benchmarks.robustness_features import PASSES, motion_of, shown_frames
from benchmarks.robustness_study_page import page, points, table

CLIPS, SCENES = 30, 15


def features(folder: Path, *, signal: float) -> Path:
    """Write the middle pass of a data set: class 1 has brighter tokens, hidden by noise kinds."""
    generator = torch.Generator().manual_seed(0)
    tags = {name: [found.tag for found in wanted] for name, (wanted, _) in PASSES.items()}
    videos = [
        {"video": f"{i}.mp4", "label": i % 2, "group": f"s{i % SCENES}", "file": f"{i:04d}"}
        for i in range(CLIPS)
    ]
    folder.mkdir(parents=True)
    direction = torch.randn(192, generator=generator)
    for video in videos:
        columns = tags["middle"]
        cells = torch.randn(len(columns), 4, 4, 192, generator=generator)
        for column, tag in enumerate(columns):
            hidden = tag != "clean" and study.category(tag) == "noise"
            if video["label"] and not hidden:
                cells[column] += signal * direction
        found = {"cells": cells.half(), "motion": torch.randn(len(columns), 6).half()}
        save_file(found, folder / f"{video['file']}.middle.safetensors")
    facts = {"tags": tags, "class_names": ["fight", "noFight"], "videos": videos}
    (folder / "index.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SEEDS": 2, "DRAWS": 100, "FLOOR_DRAWS": 2}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(heads, "STEPS", 30)

    class Vectors:
        vectors = torch.eye(2, 8)

    monkeypatch.setattr(study, "embed_labels", lambda names: Vectors)


@pytest.mark.slow
def test_heads_find_a_signal_and_lose_it_where_it_is_hidden(tmp_path: Path) -> None:
    found = study.study(features(tmp_path / "set", signal=1.0), tmp_path)
    assert found["decides"] == "3"
    numbers = found["by_severities"]["3"]
    assert (numbers["clips"], numbers["scenes"], numbers["conditions"]) == (CLIPS, SCENES, 32)
    for name in ("one frame", "probe", "attentive", "direcformer", "sevitar", "augmented"):
        head = numbers["heads"][name]
        assert head["clean"]["mean"] > 0.9, name
        assert head["categories"]["blur"]["mean"] > 0.9, name
        assert 0.25 < head["categories"]["noise"]["mean"] < 0.75, name
        assert set(head["kinds"]) == {tag.split("/")[1] for tag in tags_of(tmp_path) if "/" in tag}
    report = {
        "command": "python",
        "date": "2026-01-01",
        "conclusions": ["Written by hand."],
        "design": {
            "features": "f",
            "changed_at": "m",
            "profile": "rose",
            "held_out": "scenes",
            "seeds": 3,
            "heads": {"probe": "p"},
            "intervals": "i",
            "goal_half_width": study.GOAL,
            "contrasts": ["a - b: ?"],
        },
        "data": {"set": found},
    }
    rows = table(report)
    head = ("set", "3", CLIPS, "corrupted", "probe")
    corrupted = numbers["heads"]["probe"]["corrupted"]
    found_row = next(row for row in rows if row[:5] == head)
    assert found_row[5:] == (corrupted["mean"], corrupted["low"], corrupted["high"])
    assert sum(row[3] == "difference" for row in rows) == len(numbers["contrasts"])
    assert {len(row) for row in rows} == {len(rows[0])}

    text = page(report, "study.csv")
    assert "<a href='study.csv'>" in text
    assert "Written by hand." in text
    assert f"{CLIPS} of {CLIPS} clips" in text
    assert f"n&nbsp;= {CLIPS} clips" in text
    first = numbers["contrasts"][0]
    assert f">{points(first['mean'])} [{points(first['low'])}, {points(first['high'])}]<" in text
    assert len(text) < 200_000


def tags_of(folder: Path) -> list[str]:
    return json.loads((folder / "set" / "index.json").read_text())["tags"]["middle"]


@pytest.mark.slow
def test_without_a_signal_heads_are_at_chance_and_no_contrast_holds(tmp_path: Path) -> None:
    found = study.study(features(tmp_path / "set", signal=0.0), tmp_path)
    numbers = found["by_severities"]["3"]
    for head in numbers["heads"].values():
        assert 0.3 < head["corrupted"]["mean"] < 0.7
    for contrast in numbers["contrasts"]:
        assert contrast["low"] <= 0 <= contrast["high"], contrast["a"]


@pytest.mark.slow
def test_a_clip_is_never_answered_by_a_model_that_learned_from_its_scene(tmp_path: Path) -> None:
    """Labels that follow the scene at random cannot be known from other scenes, however well the
    scene is recognised."""
    folder = features(tmp_path / "set", signal=0.0)
    facts = json.loads((folder / "index.json").read_text())
    generator = torch.Generator().manual_seed(1)
    of_scene = torch.randint(0, 2, (SCENES,), generator=generator).tolist()
    marks = torch.randn(SCENES, 192, generator=generator) * 3
    for i, video in enumerate(facts["videos"]):
        video["label"] = of_scene[i % SCENES]
        cells = marks[i % SCENES].expand(33, 4, 4, 192).half().contiguous()
        save_file(
            {"cells": cells, "motion": torch.zeros(33, 6).half()},
            folder / f"{i:04d}.middle.safetensors",
        )
    (folder / "index.json").write_text(json.dumps(facts))
    stored = study.read_features(folder, ["middle"])
    right = study.answer_all(stored).right["probe"]
    assert 0.2 < float(right.mean()) < 0.8


def test_kendall_by_hand() -> None:
    a = torch.tensor([1.0, 2.0, 3.0])
    assert study.kendall(a, a) == 1
    assert study.kendall(a, -a) == -1
    assert study.kendall(a, torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(1 / 3)


def test_a_still_clip_has_no_motion_and_a_flashing_one_has() -> None:
    assert shown_frames(24) == [3, 4, 9, 10, 15, 16, 21, 22]
    assert shown_frames(1) == [0, 0] * 4
    still = torch.full((8, 3, 96, 96), 90, dtype=torch.uint8)
    flashing = still.clone()
    flashing[1::2] = 160
    half = len(motion_of(still)) // 2
    assert motion_of(still)[:half].abs().max() == 0
    assert motion_of(flashing)[:half].max() > 1
