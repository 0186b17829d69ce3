"""How often a map of `marey explain` deserves to be believed, per model and data set.

    python -m benchmarks.explanations --out results/explanations.json

Every map is compared with 100 random maps, a blob, the map of shuffled weights and random orders of
the frames (`marey.explain.checks`); "passed" is the share of videos whose map passes all but the
frames' order, which stands beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from marey.explain.report import explain
from marey.files import read_json, write_json
from marey.inference.predictor import Predictor
from marey.video.decode import open_video

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CLIPS = (
    "Basketball_ucf101_v_Basketball_g01_c01.avi",
    "archery_ucf101_paddlevideo_example.avi",
    "arm_wrestling_k400_mmaction2_demo.mp4",
)


def rows_of(predictor: Any, videos: list[Path], kind: str) -> list[dict[str, Any]]:
    """Return the checks of the map of every video."""
    rows = []
    for path in videos:
        with open_video(path) as reader:
            clip = predictor.preprocess.sample(reader)
        found = explain(predictor, clip, kind=kind)
        row = {"video": path.name, "label": found.label, **found.checks.to_dict()}
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Explain, check, and write the table."""
    parser = argparse.ArgumentParser(description="Pass rates of maps.")
    parser.add_argument("--model", default="marey-mini-rgb")
    parser.add_argument("--kind", default="rollout")
    parser.add_argument("--data", type=Path, default=Path("../shared/clips"))
    parser.add_argument("--out", type=Path, default=Path("results/explanations.json"))
    arguments = parser.parse_args()

    predictor = Predictor.load(arguments.model, views=1)
    report: dict[str, Any] = read_json(arguments.out) if arguments.out.exists() else {"tables": []}
    sets = {
        "examples (renders)": sorted(EXAMPLES.glob("*.mp4")),
        "clips (real)": [arguments.data / name for name in CLIPS],
    }
    for name, videos in sets.items():
        rows = rows_of(predictor, videos, arguments.kind)
        table = {
            "model": arguments.model,
            "map": arguments.kind,
            "videos": name,
            "passed": sum(row["passed"] for row in rows) / len(rows),
            "frames_order_matters": sum(row["p_temporal"] <= 0.05 for row in rows) / len(rows),
            "rows": rows,
        }
        report["tables"].append(table)
        report["command"] = "python -m benchmarks.explanations"
        report["what"] = (__doc__ or "").split("\n\n")[0]
        write_json(arguments.out, report)


if __name__ == "__main__":
    main()
