"""The study of actors and receivers, run whole on four small videos."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marey.video.encode import write_video

ROOT = Path(__file__).parents[2]
ACTIONS = ("kick", "kicked")


@pytest.fixture
def actor_receiver(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.actor_receiver as module

    return module


def make_data(root: Path, videos: int = 3) -> None:
    """Write videos of two persons in two sets, the manifest, and labels in AVA's format."""
    manifest, labels = [], {name: [] for name in ("set1", "set2")}
    (root / "kick").mkdir(parents=True)
    for which in labels:
        for number in range(videos):
            name = f"{which}_seq{number:02d}"
            generator = torch.Generator().manual_seed(len(manifest))
            frames = torch.randint(0, 256, (10, 3, 64, 64), dtype=torch.uint8, generator=generator)
            write_video(root / "kick" / f"{name}.avi", frames, fps=5)
            manifest.append(["ut", f"ut/kick/{name}.avi", "kick", number, 10, 5.0, 64, 64, 999, ""])
            for person, box in enumerate(((0.1, 0.1, 0.4, 0.9), (0.5, 0.1, 0.9, 0.9))):
                labels[which].append([f"kick_{name}", 1.0, *box, person + 1, person])
    header = [
        "dataset",
        "path",
        "label",
        "group",
        "frames",
        "fps",
        "width",
        "height",
        "bytes",
        "sha256",
    ]
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *manifest])
    for which, rows in labels.items():
        with (root / f"ava_{which}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    items = [f'item {{\n  name: "{n}"\n  id: {k + 1}\n}}\n' for k, n in enumerate(ACTIONS)]
    (root / "ava_action_list.pbtxt").write_text("".join(items))


@pytest.mark.slow
def test_the_study_runs_from_videos_to_contrasts(
    actor_receiver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import marey.papers.action_transformer_mini as mini

    monkeypatch.setattr(mini, "STEPS", 2)
    monkeypatch.setattr(actor_receiver, "first_run", lambda options: ("first", {}))
    make_data(tmp_path / "data")
    out = tmp_path / "actors.json"
    given = ["--data", tmp_path / "data", "--labels", tmp_path / "data", "--seeds", "1"]
    actor_receiver.main([str(v) for v in (*given, "--cache", tmp_path / "cache", "--out", out)])

    report = json.loads(out.read_text())
    assert set(report["directions"]) == {"set1 -> set2", "set2 -> set1"}
    heads = report["head_millions"]
    assert heads["Tx HighRes"] == pytest.approx(heads["I3D head"], rel=0.05)
    for found in report["directions"].values():
        assert found["persons"] == 6
        assert set(found["mAP"]) == {"Tx HighRes", "I3D head", "person crops", "metadata"}
        assert len(found["contrasts"]) == len(actor_receiver.CONTRASTS)
        # Only the box tells actor and receiver apart here, and the forest sees it.
        assert found["mAP"]["metadata"] == [pytest.approx(100)]


def test_every_kick_of_the_labels_has_somebody_kicked_and_boxes_are_inside() -> None:
    labels = ROOT / "results" / "actors"
    for which in ("set1", "set2"):
        rows = list(csv.reader((labels / f"ava_{which}.csv").open()))
        assert len({row[0] for row in rows}) == 60
        boxes = np.array([[float(v) for v in row[2:6]] for row in rows])
        assert (boxes >= 0).all()
        assert (boxes <= 1).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()

        names = re.findall(r'name: "(\w+)"', (labels / "ava_action_list.pbtxt").read_text())
        said: dict[str, list[str]] = {}
        for row in rows:
            said.setdefault(row[0], []).append(names[int(row[6]) - 1] if row[6] else "")
        for video, labels_of_video in said.items():
            action = video.split("_")[0]
            named = sorted(label for label in labels_of_video if label)  # bystanders have none
            # People who hug are found as one, and a person who points needs nobody.
            alone = action in ("hug", "point")
            receiving = {"kick": "kicked", "punch": "punched", "push": "pushed"}
            pair = sorted([action, receiving.get(action, action)])
            assert named == ([action] if alone else pair), video
