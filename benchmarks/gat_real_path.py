"""One real path: real videos -> features -> TFRecord -> train -> evaluate -> predict, with what each step said.

    python -m benchmarks.gat_real_path --data ../shared/data/surv_fight --clips ../shared/clips
        [--per-class 30] [--encoder marey-mini] [--work runs/gat-real-path] [--out results/gat_real_path.json]

Two classes of film in the wild (fight, noFight), a third of the groups held out. Sound is what the files have, silence
where there is no track. The control is the share of the larger class.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marey.datasets.youtube8m import open_feature_set, read_examples
from marey.features.extract import FeatureExtractor, write_features
from marey.features.sound import decode_sound
from marey.inference.features import predict_files
from marey.recipes.gat import gat_features
from marey.training.loop import train

SEEDS = 3


def write_manifest(data: Path, per_class: int, path: Path) -> None:
    """Take the first videos of each class; every third group is for testing."""
    with (data / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    groups = sorted({row["group"] for row in rows})
    test = {group for place, group in enumerate(groups) if place % 3 == 0}
    taken: Counter[str] = Counter()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for row in rows:
            if taken[row["label"]] < per_class:
                taken[row["label"]] += 1
                name = Path(row["path"]).relative_to(Path(row["path"]).parts[0])
                writer.writerow([(data / name).resolve(), row["label"], "test" if row["group"] in test else "train",
                                 row["group"]])


def main() -> None:
    """Go the whole way and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--encoder", default="marey-mini")
    parser.add_argument("--work", type=Path, default=Path("runs/gat-real-path"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    write_manifest(options.data, options.per_class, options.work / "manifest.csv")
    report = write_features(options.work / "manifest.csv", options.work / "features", FeatureExtractor(options.encoder))
    data = open_feature_set(options.work / "features")
    test = options.work / "features" / "test0000.tfrecord"
    accuracies = [test_accuracy(options.work, seed, test, data.space.class_names) for seed in range(SEEDS)]
    truth = Counter(example.labels[0] for example in read_examples(test, data.features))
    model = str(options.work / "run0" / "best")
    clips = sorted(options.clips.iterdir())
    answers = [{"video": Path(entry["video"]).name, "sound": decode_sound(path) is not None,
                "predictions": entry["predictions"], "error": entry["error"]}
               for path, entry in zip(clips, predict_files(clips, model, threshold=0.0, top=1), strict=True)]
    control = max(truth.values()) / sum(truth.values())
    result: dict[str, Any] = {
        "command": "python -m benchmarks.gat_real_path --data ../shared/data/surv_fight --clips ../shared/clips",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"), "encoder": options.encoder, "seeds": SEEDS,
        "videos": {Path(path).name: count for path, count in report.files.items()}, "unreadable": report.unreadable,
        "test_accuracy": accuracies, "mean": sum(accuracies) / SEEDS, "larger_class": control, "single_clips": answers,
        "reading": f"Real films go the whole way. On {sum(truth.values())} held-out clips of fight and noFight the "
                   f"mean accuracy over {SEEDS} seeds is {sum(accuracies) / SEEDS:.2f} ({min(accuracies):.2f} to "
                   f"{max(accuracies):.2f}) beside {control:.2f} for always naming the larger class. A control that "
                   "sees only size, rate, length and bytes of the files is not computed here; it had 0.80 on 20 "
                   "clips of surv_fight, so this shows that the path runs, and nothing about recognising fights."}
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def test_accuracy(work: Path, seed: int, test: Path, names: tuple[str, ...]) -> float:
    """Train at a seed and return the share of test videos whose best class is right."""
    config = gat_features()
    config = replace(config, data=replace(config.data, path=str(work / "features")),
                     train=replace(config.train, seed=seed, device="cpu", tensorboard=False, epochs=30, eval_every=60))
    train(config, work / f"run{seed}", quiet=True)
    entries = predict_files([test], str(work / f"run{seed}" / "best"), threshold=0.0, top=1)
    widths = open_feature_set(work / "features").features
    return sum(entry["predictions"][0]["label"] == names[example.labels[0]] for entry, example
               in zip(entries, read_examples(test, widths), strict=True)) / len(entries)


if __name__ == "__main__":
    main()
