"""From a training run to the bundled pose model: fit its trust, measure on held-out motion, store.

    python -m benchmarks.pose_model RUN/best [RUN/best ...] --cmu ../shared/data/cmu_mocap \
        --filmed 300 --tracks FOLDER --store weights/marey-mini --out results/marey_mini.json

Temperature, limit and prediction sets are fitted on scenes of validation recordings: with --filmed
on scenes drawn as pictures, in which the pose networks look for people. Everything is measured on
scenes of test recordings, with modelled errors and filmed; no video takes part. Where an action has
several recordings whole recordings are held out, else azimuths, bodies and paces
(`synthetic/poses/vocabulary.py`). Tracks of filmed scenes in --tracks are used again: delete them
when what is drawn has changed.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.interleave import machine
from marey.checkpoints.folder import save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.evaluation.poses import (
    SceneLogits,
    answers_at,
    ask_scenes,
    filmed_scenes,
    fit_calibration,
    held_out_scenes,
    measure,
    measure_sets,
)
from marey.files import write_json
from marey.inference.poses import PosePredictor
from marey.persons.sources import pose_finder
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.render import PosePlan
from marey.synthetic.poses.vocabulary import OTHER, SHOWN_AS, VOCABULARY


def average_weights(model: nn.Module, models: Sequence[nn.Module]) -> None:
    """Give a model the mean of the weights of some; a tensor that one of them lacks stays.

    Wortsman et al., "Robust fine-tuning of zero-shot models", 2022: the weights before and after
    fine-tuning, half and half.
    """
    every = [other.state_dict() for other in models]
    shared = set.intersection(*(set(weights) for weights in every))
    mean = {name: torch.stack([weights[name] for weights in every]).mean(0) for name in shared}
    model.load_state_dict({**model.state_dict(), **mean})


def scene_labels() -> list[str]:
    """Return what scenes show in turn: every class, and in a third motions without one."""
    known = [label for label in VOCABULARY if label != OTHER]
    return [*known, *[OTHER] * (len(known) // 2)]


def ask_filmed(
    predictor: PosePredictor, library: Library, split: str, given: argparse.Namespace
) -> list[SceneLogits]:
    """Ask a model about filmed scenes of a split, as many as `given.filmed`."""
    scenes = filmed_scenes(
        library,
        scene_labels(),
        split,
        given.filmed,
        given.seed,
        finder=pose_finder("auto"),
        folder=given.tracks,
    )
    return ask_scenes(predictor, scenes)


def _command(given: argparse.Namespace) -> str:
    """Return what was called, without folders of this machine."""
    words = [Path(name).name for name in given.checkpoints]
    filmed = ["--filmed", str(given.filmed), "--tracks", "TRACKS"] if given.filmed else []
    settings = ["--cmu", Path(given.cmu).name, "--scenes", str(given.scenes)]
    return " ".join(
        ["python -m benchmarks.pose_model", *words, *settings, *filmed, "--seed", str(given.seed)]
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", help="of several, the mean of their weights")
    parser.add_argument("--cmu", required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scenes", type=int, default=1680)
    parser.add_argument("--filmed", type=int, default=0, help="filmed scenes of each split")
    parser.add_argument("--tracks", type=Path, help="where the tracks of filmed scenes are kept")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)

    library, labels = PosePlan(cmu=given.cmu).library(), scene_labels()
    checkpoint = load_checkpoint(given.checkpoints[0])
    average_weights(checkpoint.model, [load_checkpoint(path).model for path in given.checkpoints])
    checkpoint.extra["shown_as"] = SHOWN_AS
    predictor = PosePredictor(checkpoint)
    fitted, tested = (
        ask_scenes(predictor, held_out_scenes(library, labels, split, given.scenes, given.seed))
        for split in ("val", "test")
    )
    filmed: dict[str, list[SceneLogits]] = {}
    if given.filmed:
        if given.tracks is None:
            parser.error("--filmed needs --tracks FOLDER")
        given.tracks.mkdir(parents=True, exist_ok=True)
        for split in ("val", "test"):
            filmed[split] = ask_filmed(predictor, library, split, given)
            print(f"{split}: people found in {len(filmed[split])} of {given.filmed} filmed scenes")
    calibration = fit_calibration(predictor, filmed.get("val", fitted))
    threshold = calibration["unknown"]["threshold"]
    thresholds = calibration["trust"]["set"]["thresholds"]

    def measured(asked: list[SceneLogits]) -> dict[str, Any]:
        answers = answers_at(predictor, asked, calibration["temperature"])
        sets = measure_sets(answers, predictor.class_names, thresholds)
        return {**measure(answers, threshold), "sets": sets}

    found = measured(tested)
    print(f"temperature {calibration['temperature']:.2f}, threshold {threshold:.3f}")
    print("known", found["known"], "ece", found["ece"], "sets", found["sets"])
    print("unknown", found["unknown"])
    seen = {f"{split}_filmed": measured(asked) for split, asked in filmed.items()}
    for split, row in seen.items():
        print(split, row["known"], row["unknown"], "ece", row["ece"], "sets", row["sets"])
    for name, row in found["per_action"].items():
        print(f"{name:18s} {row['top1']:.2f} {row['top1_of_guess']:.2f} {row['called']}")

    if given.store is not None:
        save_checkpoint(
            given.store,
            checkpoint.model,
            class_names=checkpoint.class_names,
            preprocess=checkpoint.pose_sampling,
            calibration=calibration,
            extra={**checkpoint.extra, "shown_as": SHOWN_AS},
            tensors={
                name: values
                for name, values in checkpoint.tensors.items()
                if not name.startswith("trust_")  # of training's own fit on windows
            },
            storage="float16",
        )
    if given.out is not None:
        write_json(
            given.out,
            {
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "command": _command(given),
                "scenes": given.scenes,
                "calibration": calibration,
                "validation": measured(fitted),
                "test": found,
                "filmed_scenes": given.filmed,
                **seen,
            },
        )


if __name__ == "__main__":
    main()
