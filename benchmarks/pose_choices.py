"""Candidates for the bundled pose model, side by side on the windows of real people that may be
chosen on (never on those that are reported).

    python -m benchmarks.pose_choices before=MODEL bundled=MODEL,RUN/best,RUN/best ... \
        --cmu ../shared/data/cmu_mocap --tracks FOLDER --poses FOLDER \
        --out results/real_people_choices.json

Each candidate is one model, or the mean of the weights of several; its temperature and limit are
fitted on filmed scenes of held-out motion, as `benchmarks.pose_model` does. The first is what the
others are compared with, window by window. The "conclusion" is written by hand and kept.
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import machine
from benchmarks.pose_model import ask_filmed, average_weights
from benchmarks.real_people import as_json, ask_poses, compare, summary
from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.evaluation.poses import fit_calibration
from marey.files import read_json, write_json
from marey.inference.poses import PosePredictor
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.render import PosePlan
from marey.synthetic.poses.vocabulary import SHOWN_AS

LABELS = Path(__file__).parents[1] / "results" / "real_people_validation_labels.json"


def candidate(paths: list[str], library: Library, given: argparse.Namespace) -> Checkpoint:
    """Return the mean of some models, with limit and temperature fitted on filmed scenes."""
    checkpoint = load_checkpoint(paths[0])
    average_weights(checkpoint.model, [load_checkpoint(path).model for path in paths])
    extra = {**checkpoint.extra, "shown_as": SHOWN_AS}
    checkpoint = replace(checkpoint, extra=extra, calibration=None)
    predictor = PosePredictor(checkpoint)
    calibration = fit_calibration(predictor, ask_filmed(predictor, library, "val", given))
    return replace(checkpoint, calibration=calibration)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("candidates", nargs="+", help="NAME=MODEL[,MODEL...]")
    parser.add_argument("--cmu", required=True)
    parser.add_argument("--filmed", type=int, default=300)
    parser.add_argument("--tracks", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for folder in (given.tracks, given.poses):
        folder.mkdir(parents=True, exist_ok=True)

    library = PosePlan(cmu=given.cmu).library()
    windows = read_json(LABELS)["windows"]
    found: dict[str, Any] = {}
    before: list[dict[str, Any]] | None = None
    for entry in given.candidates:
        name, _, models = entry.partition("=")
        predictor = PosePredictor(candidate(models.split(","), library, given))
        rows = list(ask_poses(predictor, windows, given.shared, given.poses))
        said = summary(rows)
        keys = (
            "known_actions",
            "known_actions_first_guess",
            "unknown_recognised",
            "unknown_against_known",
        )
        found[name] = {"models": models.count(",") + 1, **{key: said[key] for key in keys}}
        if before is None:
            before = [as_json(row) for row in rows]
        else:
            found[name]["compared_with_the_first"] = compare(rows, before)
        shares = " ".join(str(said[key]["share"]) for key in keys[:3])
        print(f"{name:20s} {shares} {said['unknown_against_known']}", flush=True)

    earlier = read_json(given.out) if given.out.is_file() else {}
    write_json(
        given.out,
        {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "command": "python -m benchmarks.pose_choices NAME=MODEL[,MODEL...] ... --cmu cmu_mocap"
            f" --filmed {given.filmed} --seed {given.seed} --tracks TRACKS",
            "conclusion": earlier.get("conclusion", ""),
            "windows": len(windows),
            "candidates": found,
        },
    )


if __name__ == "__main__":
    main()
