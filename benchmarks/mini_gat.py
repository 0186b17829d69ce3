"""Measure a trained GAT on its test features, set its unknown-limit, and write the bundled marey-mini-gat.

    marey data render action-videos --clips CLIPS --out runs/action-videos --videos 600
    marey features runs/action-videos --out runs/action-features --encoder ENCODER
    marey train gat_features --data runs/action-features --out runs/mini-gat
    python -m benchmarks.mini_gat --run runs/mini-gat --features runs/action-features --encoder ENCODER
        [--clips ../shared/clips] [--bundle src/marey/weights/marey-mini-gat] [--out results/gat_mini_model.json]

CLIPS is a folder of `marey data render mocap`, ENCODER the checkpoint that makes the frame features (it is copied into
the bundle, so that a later marey-mini does not change what this model sees).
"""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marey.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from marey.datasets.index import VIDEO_SUFFIXES
from marey.datasets.youtube8m import collate_features, example_tensors, open_feature_set, read_examples
from marey.features.predict import FeaturePredictor
from marey.metrics.youtube8m import youtube8m_metrics

FALSE_ALARMS = 0.05
"""Share of validation videos of known actions that the limit may call unknown."""


@torch.inference_mode()
def scores_of(checkpoint: Checkpoint, features: Path, partition: str) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and targets, (N, K) each, of one partition."""
    data = open_feature_set(features)
    batch = collate_features([example_tensors(example, data.space) for shard in data.shards(partition)
                              for example in read_examples(shard, data.features)])
    logits = checkpoint.model(batch["features"], batch["mask"])["logits"]
    return logits.double().sigmoid().numpy(), batch["targets"].numpy()


def answers_on(folder: Path, predictor: FeaturePredictor) -> list[dict[str, Any]]:
    """Return what the model says about real videos that show none of its actions, unless by chance."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in VIDEO_SUFFIXES):
        prediction = predictor(path)
        found.append({"video": path.name, "top": [[label, round(p, 3)] for label, p in prediction.top(3)],
                      "unknown": prediction.trust["unknown"]})
    return found


def main() -> None:
    """Measure, write the bundle and the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.run / "best")
    test, truth = scores_of(checkpoint, options.features, "test")
    known, _ = scores_of(checkpoint, options.features, "validate")
    limit = float(np.quantile(known.max(1), FALSE_ALARMS))
    metrics = youtube8m_metrics(test, truth)
    chance = youtube8m_metrics(np.random.default_rng(0).random(test.shape), truth)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.mini_gat --run runs/mini-gat --features runs/action-features "
                   "--encoder ENCODER", "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "test_videos": len(truth), "classes": checkpoint.class_names,
        "metrics": metrics, "chance": chance, "min_probability": limit,
        "unknown_share_on_test": float((test.max(1) < limit).mean())}
    if options.bundle:
        extra = {**checkpoint.extra, "encoders": {**checkpoint.extra["encoders"], "frames": "encoder"}}
        extra.pop("config", None)
        save_checkpoint(options.bundle, checkpoint.model, class_names=checkpoint.class_names, preprocess=None,
                        calibration={"min_probability": limit}, extra=extra, storage="float16")
        (options.bundle / "encoder").mkdir(exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(options.encoder / name, options.bundle / "encoder" / name)
        size = sum(path.stat().st_size for path in options.bundle.rglob("*") if path.is_file())
        result["bundle_megabytes"] = round(size / 1e6, 2)
        if options.clips:
            result["real_clips"] = answers_on(options.clips, FeaturePredictor(load_checkpoint(options.bundle)))
    result["reading"] = reading(result)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def reading(result: dict[str, Any]) -> str:
    """Sum the numbers up in a sentence."""
    text = (f"On {result['test_videos']} rendered test videos (bodies, views and backgrounds not trained on) GAP is "
            f"{result['metrics']['gap']:.2f} and Hit@1 {result['metrics']['hit_at_1']:.2f} (random scores: "
            f"{result['chance']['gap']:.2f} and {result['chance']['hit_at_1']:.2f}); these are the same 15 recordings "
            "as in training.")
    if "real_clips" in result:
        unknown = sum(clip["unknown"] for clip in result["real_clips"])
        text += f" Of {len(result['real_clips'])} real clips of other actions it calls {unknown} unknown."
    return text


if __name__ == "__main__":
    main()
