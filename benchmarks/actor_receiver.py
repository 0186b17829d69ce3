"""Who acts and who receives in UT-Interaction: the Tx head, an I3D head of its size, and controls.

    python -m benchmarks.actor_receiver --data ../shared/data/ut_interaction --cache CACHE
        --out results/actors/actors.json

`results/actors/` holds one key frame (the middle) of each of the 120 videos in AVA's format: the
boxes of both persons, found by the bundled pose detector, and what each of them does, labelled by
hand: `kick`, `punch`, `push` or `point`, or `kicked`, `punched`, `pushed` by the other; `handshake`
and `hug` hold for both, and people who hug are found as one person. Bystanders have no action.
Trained on one set (one scene), tested on the other.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.written_result import write_result
from marey.datasets.ava import AvaIndex, open_ava
from marey.datasets.ava_clips import AvaDataset
from marey.metrics.ava import evaluate
from marey.metrics.ava_evaluator import AvaEvaluator
from marey.metrics.ava_paired import Answers, paired_map_difference
from marey.models.action_transformer import ActionTransformer, count_parameters
from marey.papers.action_transformer import VARIANTS_OF_TABLES
from marey.papers.action_transformer_mini import Variant, measure, train_heads
from marey.papers.action_transformer_scenes import (
    Mapped,
    Scenes,
    first_run,
    image_stem,
    mixed,
    see_scenes,
)
from marey.papers.cells import ReproduceOptions
from marey.recipes.action_transformer import TABLE_MODEL, mini_preprocess

LABELS = Path(__file__).parents[1] / "results" / "actors"
SETS = ("set1", "set2")
HEADS = {"Tx HighRes": "Relations: Tx HighRes", "I3D head": "Relations: I3D head"}
"""Name -> line of the tables whose model it is; both heads have the same number of parameters."""
CONTRASTS = (
    ("Tx HighRes", "I3D head"),
    ("Tx HighRes", "person crops"),
    ("I3D head", "person crops"),
    ("Tx HighRes", "metadata"),
    ("I3D head", "metadata"),
)


def lay_out(data: Path, labels: Path, root: Path) -> None:
    """Link videos and labels into AVA's layout."""
    (root / "videos").mkdir(parents=True)
    for video in data.glob("*/*.avi"):
        (root / "videos" / f"{video.parent.name}_{video.name}").symlink_to(video.resolve())
    for name in (*(f"ava_{split}.csv" for split in SETS), "ava_action_list.pbtxt"):
        shutil.copy(labels / name, root / name)


def trunk_maps_of(index: AvaIndex, options: ReproduceOptions) -> Mapped:
    """Return the maps of the mini tables' trunk, which was trained on rendered scenes."""
    stored = see_scenes(AvaDataset(index, mini_preprocess()), image_stem())
    persons = stored["persons"].tolist()
    scenes = Scenes(
        fine=stored["fine"],
        coarse=stored["coarse"],
        boxes=list(stored["boxes"].split(persons)),
        labels=list(stored["labels"].split(persons)),
    )
    _, state = first_run(options)
    model = ActionTransformer(num_classes=23, num_frames=8, **TABLE_MODEL)
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        maps = torch.cat([mixed(model.eval(), scenes, [i]).half() for i in range(len(scenes))])
    return Mapped(maps=maps, proposals=scenes.boxes, boxes=scenes.boxes, labels=scenes.labels)


@torch.no_grad()
def crop_features(index: AvaIndex) -> np.ndarray:
    """Return mean and standard deviation over time of the image stem's pooled features of every
    person's crop, (P, 2 x 112)."""
    dataset, trunk, rows = AvaDataset(index, mini_preprocess()), image_stem(), []
    for key in index.key_frames:
        frames = dataset.frames(key)
        height, width = frames.shape[-2:]
        for box in (key.boxes_xyxy_norm * torch.tensor([width, height, width, height])).tolist():
            x1, y1, x2, y2 = (int(v) for v in box)
            crop = frames[:, :, y1 : max(y2, y1 + 8), x1 : max(x2, x1 + 8)].float()
            crop = F.interpolate(crop, (112, 112), mode="bilinear", antialias=True).byte()
            _, coarse = trunk.stem_features(dataset.preprocess.clip(crop)[0])
            pooled = coarse.mean(dim=(2, 3))
            rows.append(torch.cat([pooled.mean(dim=0), pooled.std(dim=0)]).numpy())
    return np.stack(rows)


def metadata(index: AvaIndex, data: Path) -> np.ndarray:
    """Return box, frame size, rate, length and bytes of every person, (P, 10)."""
    manifest = {}
    for line in (data / "manifest.csv").read_text().splitlines()[1:]:
        _, path, _, _, frames, fps, width, height, size, _ = line.split(",")
        name = "_".join(Path(path).with_suffix("").parts[-2:])
        manifest[name] = [float(v) for v in (frames, fps, width, height, size)]
    rows = []
    for key in index.key_frames:
        for x1, y1, x2, y2 in key.boxes_xyxy_norm.tolist():
            rows.append([x1, y1, x2, y2, (x2 - x1) * (y2 - y1), *manifest[key.video]])
    return np.array(rows)


def answers_of(index: AvaIndex, scores: np.ndarray) -> Answers:
    """Return scores (P, K) of all persons as answers."""
    evaluator, start = AvaEvaluator(index.class_names), 0
    for key in index.key_frames:
        own = scores[start : start + len(key.labels)]
        start += len(key.labels)
        boxes = key.boxes_xyxy_norm.numpy()
        evaluator.add_image(boxes, key.labels.numpy(), boxes, own)
    return evaluator.rows()


def fitted(kind: str, x: np.ndarray, z: np.ndarray, train: AvaIndex, test: AvaIndex) -> Answers:
    """Fit a control on one set and return its answers on the other; one class more: no action.

    Args:
        kind: "metadata" (random forest) or "person crops" (logistic regression).
        x, z: features of the persons of `train` and `test`.
    """
    labels = torch.cat([key.labels for key in train.key_frames])
    number = torch.where(labels.any(dim=1), labels.argmax(dim=1), -1).numpy()
    if kind == "metadata":
        model: Any = RandomForestClassifier(300, random_state=0)
    else:
        scaler = StandardScaler().fit(x)
        x, z = scaler.transform(x), scaler.transform(z)
        model = LogisticRegression(C=0.01, max_iter=2000)
    model.fit(x, number)
    scores = np.zeros((len(z), len(train.class_names)))
    for column, known in enumerate(model.classes_):
        if known >= 0:
            scores[:, known] = model.predict_proba(z)[:, column]
    return answers_of(test, scores)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both directions and write the table; a reading written by hand is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    options = ReproduceOptions(cache=given.cache, seeds=given.seeds)
    rows: dict[str, Variant] = {row.name: row for row in VARIANTS_OF_TABLES}
    directions: dict[str, Any] = {}
    sizes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "ava"
        lay_out(given.data, given.labels, root)
        indices = {split: open_ava(root, split) for split in SETS}
        maps = {split: trunk_maps_of(index, options) for split, index in indices.items()}
        known = {
            "person crops": {split: crop_features(index) for split, index in indices.items()},
            "metadata": {split: metadata(index, given.data) for split, index in indices.items()},
        }
        for first, second in (SETS, SETS[::-1]):
            train, test = indices[first], indices[second]
            answers: dict[str, list[Answers]] = {}
            for name, line in HEADS.items():
                row = rows[line]
                for seed in range(given.seeds):
                    torch.manual_seed(seed)
                    settings = {**TABLE_MODEL, **row.model, **row.mini}
                    model = ActionTransformer(
                        num_classes=len(train.class_names), num_frames=8, **settings
                    )
                    train_heads(model, maps[first], row, seed)
                    found = measure(model, maps[second], row).rows()
                    answers.setdefault(name, []).append(found)
                    print(first, name, seed, file=sys.stderr, flush=True)
                sizes[name] = round(count_parameters(model)["head"], 3)
            for control, features in known.items():
                found = fitted(control, features[first], features[second], train, test)
                answers[control] = [found] * given.seeds
            names = {k + 1: name for k, name in enumerate(train.class_names)}
            directions[f"{first} -> {second}"] = {
                "persons": int(sum(len(key.labels) for key in test.key_frames)),
                "mAP": {
                    name: [100 * evaluate(*found, names)["mAP"] for found in list_of]
                    for name, list_of in answers.items()
                },
                "contrasts": [
                    {"first": a, "second": b} | paired_map_difference(answers[a], answers[b], names)
                    for a, b in CONTRASTS
                ],
            }
    report = {
        "command": "python -m benchmarks.actor_receiver --data ../shared/data/ut_interaction "
        f"--cache CACHE --seeds {given.seeds} --out results/actors/actors.json",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "question": "is the Tx head better at actor and receiver than an I3D head of its size?",
        "boxes": "given (detected persons), in training and test",
        "head_millions": sizes,
        "interval": "95 %, paired bootstrap over videos, seeds held fixed; contrasts are shares",
        "directions": directions,
    }
    write_result(given.out, report)


if __name__ == "__main__":
    main()
