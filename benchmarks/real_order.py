"""The order of moments of real people, recovered through poses and through pictures.

    python -m benchmarks.real_order --data ../shared/data --out results/real_order.json

Of every video of UT-Interaction and surv_fight in which somebody was found: the window of 16
moments in 2 seconds with most to say, as `marey order` takes it, shuffled four times. Neighbours
and direction are read from the model's directed matrix ("path", "sort"), or neighbours from the
keypoints and the direction from the matrix ("oriented"). The untrained baselines are the shortest
path through the keypoints, or through the same moments' pictures at 32 x 32 pixels, with a coin
flip for the direction. No real video took part in training. Intervals are over the groups that each
data set names. Poses are found once and kept in --poses.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from benchmarks.interleave import machine
from benchmarks.real_people import poses_of
from marey.checkpoints.load import load_checkpoint
from marey.datasets.open import open_dataset
from marey.files import write_json
from marey.inference.pose_windows import PoseClips, cut_tracks
from marey.inference.poses import PosePredictor
from marey.metrics.intervals import proportion_interval
from marey.metrics.order import (
    chance_order_accuracy,
    chance_up_to_direction,
    order_accuracy,
    order_measures,
)
from marey.order.correction import (
    SIDE,
    attention_outputs,
    frame_distances,
    order_matrix,
    permute_frames,
    read_order,
)
from marey.order.path import net_weight, shortest_path
from marey.order.permutations import random_permutations
from marey.video.decode import open_video

SHUFFLES = 4
DATA_SETS = ("ut_interaction", "surv_fight")


def main_window(clips: PoseClips) -> int:
    """Return the number of the window with most to say, as `marey order` chooses it."""
    seen = (clips.clips[..., 2] > 0).any(-1).float().mean(-1)
    return int((clips.weight * seen).argmax())


def picture_distances(path: Path, seconds: list[float]) -> Tensor:
    """Return how different the pictures of some moments of a video look, (T, T)."""
    with open_video(path) as reader:
        within = [min(max(second, 0.0), reader.duration_seconds) for second in seconds]
        indices = reader.indices_at_seconds(within)
        chosen = sorted(set(indices))
        frames = reader.frames_at(chosen).frames.float() / 255
    small = adaptive_avg_pool2d(frames, (SIDE, SIDE)).flatten(1)
    flat = small[[chosen.index(index) for index in indices]]
    return torch.cdist(flat, flat) / flat.shape[1] ** 0.5


def summary(
    measured: list[dict[str, Tensor]], groups: list[str], coin: list[Tensor] | None = None
) -> dict[str, Any]:
    """Return means and intervals of measures (S,) of every video."""
    found: dict[str, Any] = {}
    for name in ("order_accuracy", "up_to_direction", "direction_right"):
        values = torch.stack([row[name].mean() for row in measured])
        if coin is not None:
            if name == "direction_right":
                continue
            if name == "order_accuracy":
                values = torch.stack([row.mean() for row in coin])
        low, high = proportion_interval(values, groups)
        found[name] = {
            "mean": round(float(values.mean()), 4),
            "interval": [round(low, 4), round(high, 4)],
        }
    return found


def measure(predictor: PosePredictor, data: Path, name: str, store: Path) -> dict[str, Any]:
    """Measure one data set."""
    index = open_dataset(data / name)
    generator = torch.Generator().manual_seed(0)
    ours: dict[str, list[dict[str, Tensor]]] = {"path": [], "sort": [], "oriented": []}
    baselines: dict[str, list[dict[str, Tensor]]] = {"keypoints": [], "pictures": []}
    coins: dict[str, list[Tensor]] = {"keypoints": [], "pictures": []}
    groups, alone = [], 0
    for sample in index.samples:
        video = sample.path
        found = poses_of(video, store)
        clips = cut_tracks(found, predictor.sampling)
        if not len(clips):
            alone += 1
            continue
        place = main_window(clips)
        window = clips.clips[place][None]  # (1, T, P * 17, 3)
        T = window.shape[1]
        order = random_permutations(SHUFFLES, T, generator)
        shuffled = permute_frames(window.expand(SHUFFLES, -1, -1, -1), order)
        with torch.inference_mode():
            outputs = attention_outputs(predictor.model, shuffled)
        weights = order_matrix(outputs["attention_time"], T)
        for method in ("path", "sort"):
            ours[method].append(order_measures(read_order(weights, method), order))

        times = [clips.start_seconds[place] + time for time in predictor.sampling.times.tolist()]
        places = order.argsort(1)  # where each moment stands in the shuffled clip
        pictures = picture_distances(video, times)[None]
        for kind, distances in (("keypoints", frame_distances(window)), ("pictures", pictures)):
            path = places[:, shortest_path(distances)[0]]
            if kind == "keypoints":  # as `oriented_path`, with one search for all shuffles
                backwards = net_weight(weights, path) < 0
                turned = torch.where(backwards[:, None], path.flip(1), path)
                ours["oriented"].append(order_measures(turned, order))
            baselines[kind].append(order_measures(path, order))
            reversed_accuracy = order_accuracy(path.flip(1), order)
            coins[kind].append((baselines[kind][-1]["order_accuracy"] + reversed_accuracy) / 2)
        groups.append(str(sample.group))
    return {
        "clips": len(groups),
        "groups": len(set(groups)),
        "nobody_found": alone,
        "model": {method: summary(rows, groups) for method, rows in ours.items()},
        "untrained": {kind: summary(rows, groups, coins[kind]) for kind, rows in baselines.items()},
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.poses.mkdir(parents=True, exist_ok=True)

    predictor = PosePredictor(load_checkpoint(given.model))
    T = predictor.sampling.num_frames
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": "python -m benchmarks.real_order --data ../shared/data --poses POSES",
        "moments": T,
        "shuffles": SHUFFLES,
        "chance": {
            "order_accuracy": round(chance_order_accuracy(T), 4),
            "up_to_direction": round(chance_up_to_direction(T), 4),
            "direction_right": 0.5,
        },
    }
    for name in DATA_SETS:
        results[name] = measure(predictor, given.data, name, given.poses)
        print(name, results[name])
    if given.out is not None:
        write_json(given.out, results)


if __name__ == "__main__":
    main()
