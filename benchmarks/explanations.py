"""How often a map of `marey explain` deserves to be believed, per model and data set:
results/explanations.json.

    python -m benchmarks.explanations --data ../shared [--poses POSES]

Every map is compared with 100 random maps (half of them smooth), a map of the middle, the map of
the same model with shuffled weights, and random orders of the frames (`marey.explain.checks`,
`marey.explain.pose_checks`). "passed" is the share of videos whose map passes all but the frames'
order, which stands beside it. `--poses` takes stored poses (`PoseTracks.save`), one file per video.
The table is written after each part.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

from benchmarks.bundled_trust import file_digest
from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.sources import WEIGHTS_FOLDER
from marey.explain.checks import MapChecks
from marey.explain.poses import window_checks, window_relevance
from marey.explain.report import explain
from marey.files import write_json
from marey.inference.poses import PosePredictor
from marey.inference.predictor import Predictor
from marey.persons.pose_tracks import PoseTracks
from marey.video.decode import open_video

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLIPS = (
    "Basketball_ucf101_v_Basketball_g01_c01.avi",
    "archery_ucf101_paddlevideo_example.avi",
    "arm_wrestling_k400_mmaction2_demo.mp4",
)
RENDERS, CLIPS_OF_PEOPLE, INTERACTIONS = (
    "examples (renders)",
    "clips (real)",
    "UT-Interaction (real), the first of each class",
)
MAPS = (
    ("marey-mini", "occlusion", (RENDERS, CLIPS_OF_PEOPLE, INTERACTIONS)),
    ("marey-mini-rgb", "rollout", (RENDERS,)),
)
"""The map that `marey explain` shows for each bundled model, and the videos it is checked on; real
video is unknown to marey-mini-rgb, so there is no answer to explain."""


def videos_of(root: Path) -> dict[str, list[Path]]:
    """Return the videos of every data set: UT-Interaction's first of each class."""
    folder = root / "data" / "ut_interaction"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first: dict[str, Path] = {}
    for row in rows:
        path = folder / row["path"]
        first.setdefault(row["label"], path if path.exists() else folder.parent / row["path"])
    return {
        RENDERS: sorted(EXAMPLES.glob("*.mp4")),
        CLIPS_OF_PEOPLE: [root / "clips" / name for name in CLIPS],
        INTERACTIONS: list(first.values()),
    }


def pose_checks(
    predictor: PosePredictor, video: Path, poses: Path | None
) -> tuple[str, MapChecks] | None:
    """Return the first answer of a model of poses and the checks of the map of the window that had
    most to say, as `explain_poses` makes it; None for nobody."""
    stored = None if poses is None else next(poses.rglob(f"{video.name}.npz"), None)
    tracks = predictor.read(video) if stored is None else PoseTracks.load(stored)
    answer = predictor.answer(tracks)
    if not answer.somebody:
        return None
    target = int(answer.probabilities.argmax())
    window = answer.clips.clips[int(answer.clips.weight.argmax())]
    relevance = window_relevance(predictor, window, target)
    checks = window_checks(predictor, window, target, relevance)
    return predictor.class_names[target], checks


def clip_checks(predictor: Predictor, video: Path, kind: str) -> tuple[str, MapChecks]:
    """Return the first answer of a model of clips and the checks of its map."""
    with open_video(video) as reader:
        clip = predictor.preprocess.sample(reader)
    found = explain(predictor, clip, kind=kind)
    return found.label, found.checks


def main() -> None:
    """Explain, check, and write the table."""
    parser = argparse.ArgumentParser(description="Pass rates of maps.")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/explanations.json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    report: dict[str, Any] = {
        "command": "python -m benchmarks.explanations --data ../shared --poses POSES",
        "what": (__doc__ or "").split("\n\n")[0].replace("\n", " "),
        "weights": {
            model: file_digest(WEIGHTS_FOLDER / model / "model.safetensors") for model, _, _ in MAPS
        },
        "tables": [],
    }
    every = videos_of(arguments.data)
    for model, kind, names in MAPS:
        checkpoint = load_checkpoint(model)
        predictor: Any = (
            PosePredictor(checkpoint)
            if checkpoint.task == "poses"
            else Predictor(checkpoint, views=1)
        )
        for name in names:
            videos = every[name]
            rows: list[dict[str, Any]] = []
            nobody = 0
            for video in videos:
                if checkpoint.task == "poses":
                    checked = pose_checks(predictor, video, arguments.poses)
                else:
                    checked = clip_checks(predictor, video, kind)
                if checked is None:
                    nobody += 1
                    continue
                rows.append({"video": video.name, "label": checked[0], **checked[1].to_dict()})
                print(model, rows[-1], round(time.process_time()), flush=True)
            table = {"model": model, "map": kind, "videos": name, "without_people": nobody}
            if rows:
                table["passed"] = sum(row["passed"] for row in rows) / len(rows)
                order = sum(row["p_temporal"] <= 0.05 for row in rows)
                table["frames_order_matters"] = order / len(rows)
            report["tables"].append({**table, "rows": rows})
            report["seconds"] = round(time.monotonic() - started)
            write_json(arguments.out, report, indent=1)


if __name__ == "__main__":
    main()
