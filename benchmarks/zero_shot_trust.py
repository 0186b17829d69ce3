"""Whether "none of these" can be believed when names are given: `--labels` on rendered people.

    python -m benchmarks.zero_shot_trust --out results/zero_shot_trust.json

Every render is asked twice: with five names of actions that hold its own, and with five that do
not. The score is that of `marey.inference.none_of_these`, beside the largest probability among the
names and the largest similarity. The actions were trained on, so names never trained on can only be
worse; the nine single clips beside --data are asked names that none of them shows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.files import write_json
from marey.inference.none_of_these import none_of_these
from marey.inference.predictor import Predictor
from marey.inference.zero_shot import TEMPERATURE, label_vectors, similarity
from marey.metrics.selective import auroc, fpr_at_tpr
from marey.synthetic.dataset import PackedClips, RenderPlan, render_dataset

RENDERS = 300
NAMES = 5
CLIP_NAMES = ("painting a fence", "milking a cow", "chess")


def scores_of(meant: Tensor, names: list[str], checkpoint: Any) -> dict[str, float]:
    """Return the scores of one video, larger where none of the names fits."""
    vectors = label_vectors(names, checkpoint)
    cosine = similarity(meant, vectors).mean(0)
    return {
        "everyday actions": none_of_these(meant, vectors, checkpoint)["none_score"],
        "largest probability": -float((cosine / TEMPERATURE).softmax(-1).max()),
        "largest similarity": -float(cosine.max()),
    }


def main() -> None:
    """Ask, and write the table."""
    parser = argparse.ArgumentParser(description="Whether 'none of these' can be believed.")
    parser.add_argument("--model", default="marey-mini-rgb")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--renders", type=Path, default=Path("runs/zero_shot_renders"))
    parser.add_argument("--out", type=Path, default=Path("results/zero_shot_trust.json"))
    arguments = parser.parse_args()

    predictor: Any = Predictor.load(arguments.model, views=1)
    plan = RenderPlan(size=112, fps=8.0, reversals="none", seed=61, splits=("test",))
    folder = render_dataset(arguments.renders, RENDERS, plan, workers=0)
    actions, generator = plan.class_names(), torch.Generator().manual_seed(0)
    asked: dict[str, dict[str, list[float]]] = {"right among them": {}, "none of them": {}}
    said = {name: 0 for name in asked}
    for clip in PackedClips(folder):
        meant = predictor.outputs(predictor.preprocess.clip(clip["frames"]))["label_embedding"]
        own = actions[int(clip["label"])]
        others = [name for name in actions if name != own]
        drawn = [others[k] for k in torch.randperm(len(others), generator=generator)[:NAMES]]
        for kind, names in (
            ("right among them", [own, *drawn[1:]]),
            ("none of them", drawn),
        ):
            found = scores_of(meant, names, predictor.checkpoint)
            said[kind] += found["everyday actions"] > 0
            for score, value in found.items():
                asked[kind].setdefault(score, []).append(value)
    known, other = (
        {score: torch.tensor(values) for score, values in part.items()} for part in asked.values()
    )
    clips = []
    for path in sorted((arguments.data.parent / "clips").glob("*.*")):
        if path.suffix != ".md":
            trust = predictor(path, labels=CLIP_NAMES).trust
            keys = ("unknown", "reason", "none_of_these", "nearest_other", "calibrated")
            clips.append({"video": path.name, **{key: trust.get(key) for key in keys}})
    write_json(
        arguments.out,
        {
            "command": f"python -m benchmarks.zero_shot_trust --model {arguments.model}",
            "what": (__doc__ or "").split("\n\n")[0],
            "model": arguments.model,
            "num_renders": RENDERS,
            "names_asked": NAMES,
            "scores": {
                name: {
                    "auroc": auroc(known[name], other[name]),
                    "fpr95": fpr_at_tpr(known[name], other[name]),
                }
                for name in known
            },
            "called_none_of_these": {kind: count / RENDERS for kind, count in said.items()},
            "clip_names": CLIP_NAMES,
            "clips": clips,
            "limits": [
                "the names were trained on; for others the label embedding itself is near "
                "chance (results/sevitar_unseen.json), so 'none of these' can be no better",
            ],
        },
    )


if __name__ == "__main__":
    main()
