"""Measure a trained GAT on its test features, set its unknown-limit, and write the bundled marey-mini-gat.

    marey data render action-videos --clips CLIPS --out runs/action-videos --videos 400
    marey features runs/action-videos --out runs/action-features --encoder ENCODER
    marey train gat_features --data runs/action-features --out runs/mini-gat --set train.epochs=60
    python -m benchmarks.mini_gat --run runs/mini-gat --features runs/action-features --encoder ENCODER
        [--clips ../shared/clips] [--strange runs/gat-real-path/features] [--bundle weights/marey-mini-gat]
        [--out results/gat_mini_model.json]

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

from marey.checkpoints.folder import Checkpoint, save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.index import VIDEO_SUFFIXES
from marey.datasets.youtube8m import open_feature_set, read_examples
from marey.datasets.youtube8m_loading import collate_features, example_tensors
from marey.inference.features import FeaturePredictor, strangeness
from marey.metrics.youtube8m import youtube8m_metrics

FALSE_ALARMS = 0.05
"""Share of validation videos of known actions that the limit may call unknown."""
BANK = 1500
"""Seconds of training videos kept to compare with."""


@torch.inference_mode()
def scores_of(checkpoint: Checkpoint, features: Path, partition: str) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and targets, (N, K) each, of one partition."""
    data = open_feature_set(features)
    batch = collate_features([example_tensors(example, data.space) for shard in data.shards(partition)
                              for example in read_examples(shard, data.features)])
    logits = checkpoint.model(batch["features"], batch["mask"])["logits"]
    return logits.double().sigmoid().numpy(), batch["targets"].numpy()


def pictures_of(features: Path, *partitions: str) -> list[torch.Tensor]:
    """Return the picture features (T, D) of every video of some partitions."""
    data = open_feature_set(features)
    return [torch.from_numpy(example.values("rgb")) for partition in partitions for shard in data.shards(partition)
            for example in read_examples(shard, data.features)]


def fit_unknown(features: Path) -> tuple[torch.Tensor, float]:
    """Return the bank of training seconds (float16, rows of length 1) and the limit of strangeness."""
    seconds = torch.cat(pictures_of(features, "train"))
    chosen = torch.randperm(len(seconds), generator=torch.Generator().manual_seed(0))[:BANK]
    bank = torch.nn.functional.normalize(seconds[chosen], dim=1).half()
    known = [strangeness(pictures, bank) for pictures in pictures_of(features, "validate")]
    return bank, float(np.quantile(known, 1 - FALSE_ALARMS))


def answers_on(folder: Path, predictor: FeaturePredictor) -> list[dict[str, Any]]:
    """Return what the model says about real videos that show none of its actions, unless by chance."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in VIDEO_SUFFIXES):
        prediction = predictor(path)
        found.append({"video": path.name, "top": [[label, round(p, 3)] for label, p in prediction.top(3)],
                      "unknown": prediction.trust["unknown"]})
    return found


def share_unknown(videos: list[torch.Tensor], bank: torch.Tensor, limit: float) -> float:
    """Return the share of videos beyond the limit."""
    return sum(strangeness(pictures, bank) > limit for pictures in videos) / len(videos)


def main() -> None:
    """Measure, write the bundle and the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--strange", type=Path, help="features of real films without the actions, same encoder")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.run / "best")
    test, truth = scores_of(checkpoint, options.features, "test")
    bank, limit = fit_unknown(options.features)
    metrics = youtube8m_metrics(test, truth)
    chance = youtube8m_metrics(np.random.default_rng(0).random(test.shape), truth)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.mini_gat --run runs/mini-gat --features runs/action-features "
                   "--encoder ENCODER", "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "test_videos": len(truth), "classes": checkpoint.class_names,
        "metrics": metrics, "chance": chance, "unknown_limit": limit,
        "false_alarms_on_test": share_unknown(pictures_of(options.features, "test"), bank, limit)}
    if options.strange:
        strange = pictures_of(options.strange, "train", "test")
        result |= {"strange_videos": len(strange), "missed_unknown": 1 - share_unknown(strange, bank, limit)}
    if options.bundle:
        extra = {**checkpoint.extra, "encoders": {**checkpoint.extra["encoders"], "frames": "encoder"}}
        extra.pop("config", None)
        save_checkpoint(options.bundle, checkpoint.model, class_names=checkpoint.class_names, preprocess=None,
                        calibration={"ood": {"threshold": limit}}, extra=extra, tensors={"ood_bank": bank},
                        storage="float16")
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
    text += f" False alarms of the unknown-limit on them: {result['false_alarms_on_test']:.0%}."
    if "missed_unknown" in result:
        text += f" Of {result['strange_videos']} real films without these actions {result['missed_unknown']:.0%} pass."
    if "real_clips" in result:
        unknown = sum(clip["unknown"] for clip in result["real_clips"])
        text += f" Of {len(result['real_clips'])} real clips of other actions it calls {unknown} unknown."
    return text


if __name__ == "__main__":
    main()
