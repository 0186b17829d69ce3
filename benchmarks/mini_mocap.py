"""What `marey-mini` reaches on held-out renders, whether it notices time, and what it says of real clips.

    python -m benchmarks.mini_mocap --data RENDERS --clips ../shared/clips --out results/marey_mini.json

RENDERS is a folder of `marey data render mocap` (see the recipe `mini_stem`), or one with its test split only.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import marey
from marey.errors import VideoError
from marey.evaluation.order import evaluate_order_accuracy
from marey.metrics.calibration import expected_calibration_error
from marey.synthetic.mocap import REVERSALS, PackedClips, reversed_name


@torch.inference_mode()
def run(predictor: Any, frames: list[Tensor]) -> dict[str, Tensor]:
    """Return the outputs for clips of uint8 frames (T, 3, S, S), one centre crop each."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(frames), 16):
        clips = torch.stack([predictor.preprocess.clip(part)[0] for part in frames[start:start + 16]])
        outputs = predictor.outputs(clips)
        for name in ("logits", "label_embedding", "embedding", "stem_embedding"):
            if name in outputs:
                found.setdefault(name, []).append(outputs[name])
    return {name: torch.cat(parts) for name, parts in found.items()}


def measure(predictor: Any, data: Path, limit: int, order_clips: int = 400) -> dict[str, Any]:
    """Return every number of the table on held-out renders, shares in 0..1."""
    test = PackedClips(data, "test")
    names = list(predictor.class_names)
    places = range(min(limit, len(test)))
    frames, labels = [test[n]["frames"] for n in places], torch.tensor(test.labels[:limit])
    outputs = run(predictor, frames)
    answers = outputs["logits"].argmax(1)
    action = torch.tensor([names.index(forward_name(name)) for name in names])
    right = answers == labels
    turning = torch.tensor([reversed_name(names[label]) in names for label in labels.tolist()])
    turned = run(predictor, [clip.flip(0) for clip, turns in zip(frames, turning, strict=True) if turns])
    backwards = turned["logits"].argmax(1)
    wanted = torch.tensor([names.index(reversed_name(names[label])) for label in labels[turning].tolist()])
    vectors = predictor.checkpoint.tensors["label_embeddings"].float()
    nearest = (torch.nn.functional.normalize(outputs["label_embedding"], dim=-1) @ vectors.T).argmax(1)
    recorded = [clip.flip(0) if names[label] in REVERSALS.values() else clip
                for clip, label in zip(frames[:order_clips], labels.tolist(), strict=False)]
    clips = torch.stack([predictor.preprocess.clip(part)[0] for part in recorded])
    order = evaluate_order_accuracy(predictor.model, clips.split(32), shuffles=4, seed=0)
    unknown = [predictor.unknownness({key: value[n:n + 1] for key, value in outputs.items()})["unknown"]
               for n in range(len(labels))]
    return {
        "test_clips": len(labels), "classes": len(names), "chance": 1 / len(names),
        "top1": right.double().mean().item(),
        "top5": (outputs["logits"].topk(5).indices == labels[:, None]).any(1).double().mean().item(),
        "top1_up_to_reversal": (action[answers] == action[labels]).double().mean().item(),
        "per_class": {name: right[labels == k].double().mean().item() for k, name in enumerate(names)},
        "reversed_clips": int(turning.sum()),
        "reversed_clips_change_label": (backwards != answers[turning]).double().mean().item(),
        "reversed_clips_get_the_reversed_label": (backwards == wanted).double().mean().item(),
        "label_embedding_top1": (nearest == labels).double().mean().item(),
        "order_accuracy": order["order_accuracy"], "order_accuracy_interval": list(order["interval"]),
        "order_clips": len(recorded), "order_shuffles_per_clip": 4, "order_chance": order["chance"],
        "calibration_error": expected_calibration_error(predictor.probabilities(outputs["logits"]), labels),
        "called_unknown": sum(bool(value) for value in unknown) / len(unknown)}


def forward_name(name: str) -> str:
    """Return the recorded action of a class ("walk backwards" -> "walk")."""
    return next((action for action, backwards in REVERSALS.items() if backwards == name), name)


def real_clips(predictor: Any, folder: Path) -> list[dict[str, Any]]:
    """Return what the model says of every readable clip of a folder."""
    rows = []
    for path in sorted(folder.iterdir()):
        try:
            prediction = predictor(path)
        except VideoError:
            continue
        label, probability = prediction.top(1)[0]
        rows.append({"clip": path.name, "answer": label, "probability": round(probability, 3),
                     "ood_score": prediction.trust["ood_score"], "unknown": prediction.trust["unknown"]})
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--limit", type=int, default=1000, help="test clips")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    predictor = marey.Predictor.load(arguments.model)
    result = {"command": "python -m benchmarks.mini_mocap --data RENDERS --clips ../shared/clips --out "
                         "results/marey_mini.json", "model": arguments.model, "date": date.today().isoformat(),
              "held_out_test": measure(predictor, arguments.data, arguments.limit)}
    if arguments.clips is not None:
        rows = real_clips(predictor, arguments.clips)
        result |= {"real_clips": rows, "unknown_real_clips": f"{sum(row['unknown'] for row in rows)} of {len(rows)}"}
    if arguments.out is not None and arguments.out.is_file():
        result |= {"training": json.loads(arguments.out.read_text()).get("training")}
    text = json.dumps(result, indent=1)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
