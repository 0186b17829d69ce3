"""From a training run to the bundled pose model: fit the limit of "unknown", measure on held-out
motion, store.

    python -m benchmarks.pose_model RUN/best --cmu ../shared/data/cmu_mocap \
        --store weights/marey-mini --out results/marey_mini.json

The limit is fitted on scenes of validation recordings, everything is measured on scenes of test
recordings; no video takes part. Where an action has several recordings whole recordings are held
out, else azimuths, bodies and paces (`synthetic/poses/vocabulary.py`).
"""

from __future__ import annotations

import argparse
import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import machine
from marey.checkpoints.folder import Checkpoint, save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.evaluation.poses import answer_scenes, fit_unknown, held_out_scenes, measure
from marey.files import write_json
from marey.inference.poses import PosePredictor
from marey.synthetic.poses.render import PosePlan
from marey.synthetic.poses.vocabulary import VOCABULARY


def with_limit(checkpoint: Checkpoint, unknown: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint with the limit of the unknown score in its calibration."""
    return replace(checkpoint, calibration={**(checkpoint.calibration or {}), "unknown": unknown})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--cmu", required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scenes", type=int, default=1680)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)

    library = PosePlan(cmu=given.cmu).library()
    labels = list(VOCABULARY)
    checkpoint = load_checkpoint(given.checkpoint)
    predictor = PosePredictor(checkpoint)
    fitted = answer_scenes(
        predictor, held_out_scenes(library, labels, "val", given.scenes, given.seed)
    )
    unknown = fit_unknown(fitted)
    tested = answer_scenes(
        predictor, held_out_scenes(library, labels, "test", given.scenes, given.seed)
    )
    found = measure(tested, unknown["threshold"])
    print(f"threshold {unknown['threshold']:.3f}; known {found['known']}")
    print("unknown", found["unknown"])
    for name, row in found["per_action"].items():
        print(f"{name:18s} {row['top1']:.2f} {row['top1_of_guess']:.2f} {row['called']}")

    if given.store is not None:
        fixed = with_limit(checkpoint, unknown)
        save_checkpoint(
            given.store,
            fixed.model,
            class_names=fixed.class_names,
            preprocess=fixed.pose_sampling,
            calibration=fixed.calibration,
            extra=fixed.extra,
            tensors=fixed.tensors,
            storage="float16",
        )
    if given.out is not None:
        write_json(
            given.out,
            {
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "command": "python -m benchmarks.pose_model",
                "scenes": given.scenes,
                "unknown": unknown,
                "validation": measure(fitted, unknown["threshold"]),
                "test": found,
            },
        )


if __name__ == "__main__":
    main()
