"""What the bundled models say of real people: 129 windows labelled by eye before the pose model
was trained.

    python -m benchmarks.real_people --shared ../shared --out results/real_people.json

A label outside a model's vocabulary counts as "none": the right answer is "unknown". "Unknown" for
a known action is wrong. Intervals are Clopper-Pearson's at 95 %. Poses are found once and kept in
--poses. The windows that settings were chosen on: `--labels
results/real_people_validation_labels.json`. `--against` compares with an earlier result, window by
window (McNemar's exact test).
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.interleave import machine
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError
from marey.files import read_json, write_json
from marey.inference.poses import POSE_FPS, PosePredictor
from marey.inference.prediction import NO_PERSON
from marey.inference.predictor import Predictor
from marey.metrics.comparison import mcnemar_exact
from marey.metrics.selective import auroc
from marey.metrics.trust import set_of
from marey.persons.pose_tracks import PoseTracks, read_poses
from marey.video.decode import open_video

LABELS = Path(__file__).parents[1] / "results" / "real_people_labels.json"

SAME = {
    "wave": "wave or signal",
    "throw": "throw or dribble",
    "handshake": "shake hands",
    "fall": "fall or lie down",
    "lie": "fall or lie down",
    "flip": "flip or roll",
}
"""Label by eye -> name in a vocabulary, where they are spelled otherwise; fixed before training."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One window: what is shown, what should be said, what was said."""

    window: dict[str, Any]
    truth: str
    answer: str
    first_guess: str
    labels_of_90: tuple[str, ...] | None = None
    """The prediction set of 90 %, of a model that stores one."""
    unknown_score: float = math.inf
    """Larger means less like a known action; infinite where nobody was found."""
    scene: str = ""
    """Windows of one scene resemble each other; empty: the video is its own."""


def interval(hits: int, n: int, level: float = 0.95) -> list[float]:
    """Return Clopper and Pearson's interval of a proportion.

    Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the
    Binomial", 1934: the p at which `hits` or more (or fewer) have a chance of (1 - level) / 2.
    """
    tail = (1 - level) / 2

    def chance(p: float, counts: range) -> float:
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in counts)

    def solve(counts: range, rising: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if (chance(middle, counts) < tail) == rising:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    if n == 0:
        return [0.0, 1.0]
    lower = 0.0 if hits == 0 else solve(range(hits, n + 1), True)
    upper = 1.0 if hits == n else solve(range(hits + 1), False)
    return [round(lower, 4), round(upper, 4)]


def truth_of(
    label: str, vocabulary: Sequence[str], shown_as: Mapping[str, str | None] | None = None
) -> str:
    """Return what a model of this vocabulary should say: the action, "unknown", or "no person".

    Args:
        shown_as: class -> the answer it counts for, of a model whose answers merge classes.
    """
    name = SAME.get(label, label)
    name = (shown_as or {}).get(name, name) or "unknown"
    if name == NO_PERSON:
        return NO_PERSON
    return name if name in vocabulary else "unknown"


def rate(rows: Sequence[Row]) -> dict[str, Any]:
    """Return share right, number and interval."""
    hits = sum(row.answer == row.truth for row in rows)
    share = round(hits / len(rows), 4) if rows else None
    return {"n": len(rows), "right": hits, "share": share, "interval": interval(hits, len(rows))}


def separation(
    rows: Sequence[Row], before: Sequence[float] | None = None, *, draws: int = 2000
) -> dict[str, Any]:
    """Return the area under the curve of "unknown" with a percentile interval of bootstraps over
    scenes; with the scores of an earlier model, the gain over it.

    It needs no limit, so it compares models whose limits differ.
    """
    now = np.array([row.unknown_score for row in rows])
    scores = [now] if before is None else [now, np.array(before)]
    known = np.array([row.truth not in ("unknown", NO_PERSON) for row in rows])
    other = np.array([row.truth == "unknown" for row in rows])
    scenes = np.unique([row.scene or row.window["path"] for row in rows], return_inverse=True)[1]
    members = [np.flatnonzero(scenes == scene) for scene in range(scenes.max() + 1)]

    def measured(chosen: NDArray[np.int64]) -> float:
        areas = [
            auroc(*(torch.from_numpy(score[chosen[part[chosen]]]) for part in (known, other)))
            for score in scores
        ]
        return areas[0] if before is None else areas[0] - areas[1]

    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        chosen = rng.integers(0, len(members), len(members))
        drawn.append(measured(np.concatenate([members[scene] for scene in chosen])))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    value = measured(np.arange(len(rows)))
    return {
        "n": [int(known.sum()), int(other.sum())],
        "scenes": len(members),
        "auroc" if before is None else "auroc_gain": round(value, 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
    }


def sets_of(sets: Sequence[tuple[str, Sequence[str]]]) -> dict[str, Any]:
    """Return how often prediction sets hold the answer, given (answer, set) pairs."""
    inside = sum(truth in labels for truth, labels in sets)
    return {
        "n": len(sets),
        "hold_the_answer": inside,
        "share": round(inside / len(sets), 4),
        "interval": interval(inside, len(sets)),
        "mean_size": round(sum(len(labels) for _, labels in sets) / len(sets), 2),
    }


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the must-shows: known actions, unknown ones, nobody; and each label with what it was
    called."""
    known = [row for row in rows if row.truth not in ("unknown", NO_PERSON)]
    labels = sorted({row.window["label"] for row in rows})
    per_label = {}
    for label in labels:
        mine = [row for row in rows if row.window["label"] == label]
        called: dict[str, int] = {}
        for row in mine:
            called[row.answer] = called.get(row.answer, 0) + 1
        per_label[label] = {
            **rate(mine),
            "truth": mine[0].truth,
            "called": dict(sorted(called.items(), key=lambda item: -item[1])),
        }
    guesses = sum(row.first_guess == row.truth for row in known)
    sets = [(row.truth, row.labels_of_90) for row in known if row.labels_of_90 is not None]
    return {
        "known_actions": rate(known),
        "known_actions_first_guess": {
            "n": len(known),
            "right": guesses,
            "share": round(guesses / max(len(known), 1), 4),
            "interval": interval(guesses, len(known)),
            "note": "without the unknown test",
        },
        **({"sets_of_90": sets_of(sets)} if sets else {}),
        "unknown_recognised": rate([row for row in rows if row.truth == "unknown"]),
        **(
            {"unknown_against_known": separation(rows)}
            if any(math.isfinite(row.unknown_score) for row in rows)
            else {}
        ),
        "no_person": rate([row for row in rows if row.truth == NO_PERSON]),
        "per_data_set": {
            name: rate([row for row in known if row.window["dataset"] == name])
            for name in sorted({row.window["dataset"] for row in known})
        },
        "per_label": per_label,
    }


def compare(rows: Sequence[Row], before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare with the rows of an earlier result: windows won and lost, exact p-value.

    Raises:
        UserError: if they are of other windows.
    """
    if [row.window for row in rows] != [{k: old[k] for k in rows[0].window} for old in before]:
        raise UserError("--against: a result of other windows; expected one of the same --labels")
    pairs = list(zip(rows, before, strict=True))
    unknown = [(row, old) for row, old in pairs if row.truth == "unknown"]
    known = [(row, old) for row, old in pairs if row.truth not in ("unknown", NO_PERSON)]

    def counted(pairs: Sequence[tuple[Row, Mapping[str, Any]]], guess: bool) -> dict[str, Any]:
        right = [(row.first_guess if guess else row.answer) == row.truth for row, _ in pairs]
        was = [old["guess" if guess else "answer"] == old["truth"] for _, old in pairs]
        won = sum(now and not then for now, then in zip(right, was, strict=True))
        lost = sum(then and not now for now, then in zip(right, was, strict=True))
        p = round(mcnemar_exact(won, lost), 4)
        return {"before": sum(was), "now": sum(right), "won": won, "lost": lost, "p": p}

    return {
        "known_actions": counted(known, False),
        "known_actions_first_guess": counted(known, True),
        "unknown_recognised": counted(unknown, False),
        "all_windows": counted(pairs, False),
        "unknown_against_known": separation(
            rows,
            [old.get("unknown_score", math.inf) for old in before],
        ),
    }


def as_json(row: Row) -> dict[str, Any]:
    """Return a row in JSON types."""
    said = {"truth": row.truth, "answer": row.answer, "guess": row.first_guess}
    score = {"unknown_score": row.unknown_score} if math.isfinite(row.unknown_score) else {}
    return {**row.window, **said, **score}


def poses_of(path: Path, store: Path) -> PoseTracks:
    """Return the poses of a video, from the store where they are there."""
    stored = store / f"{path.parent.parent.name}_{path.parent.name}_{path.name}.npz"
    if stored.is_file():
        return PoseTracks.load(stored)
    found = read_poses(path, fps=POSE_FPS)
    found.save(stored)
    return found


def span_of(window: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the seconds of a window; None for a whole clip."""
    if window["start_seconds"] is None:
        return None
    return float(window["start_seconds"]), float(window["end_seconds"])


def read_scenes(shared: Path) -> dict[str, str]:
    """Return the scene of every video that a data set's manifest names one for, by its path."""
    found: dict[str, str] = {}
    for manifest in sorted((shared / "data").glob("*/manifest.csv")):
        with manifest.open(encoding="utf-8") as file:
            found |= {
                row["path"]: f"{row['dataset']}/{row['group']}" for row in csv.DictReader(file)
            }
    return found


def ask_poses(
    predictor: PosePredictor, windows: Sequence[dict[str, Any]], shared: Path, store: Path
) -> Iterator[Row]:
    """Let a pose model answer the windows."""
    scenes = read_scenes(shared)
    for window in windows:
        path = shared / window["path"]
        path = path if path.exists() else shared / "data" / window["path"]
        prediction = predictor.predict_tracks(poses_of(path, store), span=span_of(window))
        first = prediction.top(1)[0][0]
        answer = "unknown" if prediction.trust["unknown"] else first
        truth = truth_of(window["label"], predictor.class_names, predictor.shown_as)
        labels: tuple[str, ...] | None = ()
        if first != NO_PERSON:
            inside = set_of(prediction.probabilities, prediction.calibration, 0.9)
            labels = None if inside is None else tuple(prediction.set(0.9))
        score = prediction.trust["ood_score"]
        if score is None or (score <= 1 and prediction.trust["unknown"]):  # nobody, or no legs
            score = math.inf
        yield Row(
            window=window,
            truth=truth,
            answer=answer,
            first_guess=first,
            labels_of_90=labels,
            unknown_score=score,
            scene=scenes.get(window["path"], ""),
        )


def ask_pixels(
    predictor: Predictor, windows: Sequence[dict[str, Any]], shared: Path
) -> Iterator[Row]:
    """Let a picture model answer the windows: three clips spread over each."""
    for window in windows:
        path = shared / window["path"]
        path = path if path.exists() else shared / "data" / window["path"]
        span = span_of(window)
        with open_video(path) as reader:
            start, end = span or (0.0, reader.duration_seconds)
            clip = predictor.preprocess.sample(reader, start_seconds=start, end_seconds=end)
        prediction = predictor.predict_clip(clip)
        first = prediction.top(1)[0][0]
        answer = "unknown" if prediction.trust["unknown"] else first
        truth = truth_of(window["label"], predictor.class_names)
        yield Row(window=window, truth=truth, answer=answer, first_guess=first)


def _command(given: argparse.Namespace) -> str:
    """Return what was called, without folders of this machine."""
    words = ["python -m benchmarks.real_people --shared ../shared"]
    if given.labels != LABELS:
        words.append(f"--labels results/{given.labels.name}")
    words.append(f"--model {Path(given.model).name}")
    if not given.pixels:
        words.append("--pixels ''")
    if given.against is not None:
        words.append(f"--against results/{given.against.name}")
    return " ".join(words)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--labels", type=Path, default=LABELS, help="windows and what they show")
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--pixels", default="marey-mini-rgb")
    parser.add_argument("--against", type=Path, help="an earlier result, to compare with")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.poses.mkdir(parents=True, exist_ok=True)

    windows = read_json(given.labels)["windows"]
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": _command(given),
        "windows": len(windows),
        "models": {},
    }
    models: dict[str, Any] = {}
    pose_model = PosePredictor(load_checkpoint(given.model))
    name = Path(given.model).name
    models[name] = list(ask_poses(pose_model, windows, given.shared, given.poses))
    if given.pixels:
        pixel_model = Predictor(load_checkpoint(given.pixels))
        models[given.pixels] = list(ask_pixels(pixel_model, windows, given.shared))
    if given.against is not None:
        (before,) = [
            entry["rows"]
            for other, entry in read_json(given.against)["models"].items()
            if other != given.pixels
        ]
        found["compared_with"] = {given.against.name: compare(models[name], before)}
        print(found["compared_with"])
    for name, rows in models.items():
        found["models"][name] = {
            **summary(rows),
            "rows": [as_json(row) for row in rows],
        }
        for key in ("known_actions", "known_actions_first_guess", "unknown_recognised"):
            print(name, key, found["models"][name][key])
        print(name, "no_person", found["models"][name]["no_person"])
        for label, entry in found["models"][name]["per_label"].items():
            print(f"   {label:22s} {entry['right']}/{entry['n']} {entry['called']}")
    if given.out is not None:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
