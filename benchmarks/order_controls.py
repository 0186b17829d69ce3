"""What else could say the direction of time: the codec, the pose network's scores, the tracker.

    python -m benchmarks.order_controls --data ../shared/data --poses POSES \
        --out results/order_controls.json

Asked before it was run. (1) Re-encoded alike: the two seconds that `marey order` looks at are
decoded, written forwards and written backwards with the same encoder settings, each from its own
first frame, and people are looked for in both files anew. If the codec or the tracker gave the
direction away, the reversed file would be called "forwards" as often as the other. Right answers
on the reversed files should be as frequent as on the others. (2) Codec alone: the sizes of the
packets of those files, 16 of them in order, by ridge regression over groups: .5 is chance. Beside
it the same for the files as they came. (3) Scores alone: the mean score of the pose network at
each of the 16 moments, by ridge regression. (4) Scores of all joints: the arrow of time trained on
the same clips' windows with every joint at one place, so that only these scores are left.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from benchmarks.arrow_tuning import (
    filmed_both_ways,
    folds_of,
    tuned_log_odds,
    windows_of_groups,
)
from benchmarks.interleave import machine
from benchmarks.order import DATA_SETS, share
from benchmarks.real_people import poses_of
from marey.checkpoints.folder import Checkpoint, save_checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.open import open_dataset
from marey.files import write_json
from marey.inference.direction import direction_of
from marey.inference.pose_windows import PoseClips, cut_tracks, main_window, windows_at
from marey.inference.poses import POSE_FPS, PosePredictor
from marey.models.arrow_of_time import DIRECTIONS, ArrowOfTime
from marey.persons.pose_tracks import read_poses
from marey.transforms.pose_clip import PoseSampling

SIZES = 16
"""Packet sizes of a file, spread over its length."""


def packet_sizes(path: Path) -> Tensor:
    """Return the logarithms of `SIZES` packet sizes of a video in presentation order, less their
    mean."""
    with av.open(str(path)) as container:
        packets = [
            packet for packet in container.demux(video=0) if packet.size and packet.pts is not None
        ]
    sizes = torch.tensor([packet.size for packet in sorted(packets, key=lambda p: p.pts or 0)])
    chosen = sizes[torch.linspace(0, len(sizes) - 1, SIZES).long()].double().log()
    return chosen - chosen.mean()


def ridge_right(x: Tensor, y: Tensor, groups: Sequence[str], strength: float = 10.0) -> Tensor:
    """Return which rows a ridge regression of other folds' groups gets right, bool (N,).

    Args:
        x: (N, F); y: (N,), 1 or -1.
    """
    x = x / x.std(0).clamp_min(1e-9)
    folds = torch.tensor([folds_of(sorted(set(groups)))[group] for group in groups])
    right = torch.zeros(len(y), dtype=torch.bool)
    for fold in folds.unique().tolist():
        a, b = x[folds != fold], y[folds != fold]
        weights = torch.linalg.solve(a.T @ a + strength * torch.eye(x.shape[1]).double(), a.T @ b)
        right[folds == fold] = (x[folds == fold] @ weights) * y[folds == fold] > 0
    return right


def direction_in(predictor: PosePredictor, arrow: Checkpoint, video: Path) -> float | None:
    """Return the probability of "forwards" of a file whose people are looked for now."""
    found = read_poses(video, fps=POSE_FPS, finder=predictor.finder)
    clips = cut_tracks(found, predictor.sampling)
    if not len(clips):
        return None
    start = clips.start_seconds[main_window(clips)]
    people = windows_at(found, start, predictor.sampling)
    return direction_of(arrow, people).forwards if len(people) else None


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--arrow", default="marey-arrow")
    parser.add_argument("--clips", type=int, default=24, help="re-encoded, of each data set")
    parser.add_argument("--no-training", dest="train", action="store_false", help="leave (4) out")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)

    predictor = PosePredictor(load_checkpoint("marey-mini"))
    arrow = load_checkpoint(given.arrow)
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": "python -m benchmarks.order_controls --data ../shared/data --poses POSES",
    }

    def write() -> None:
        if given.out is not None:
            write_json(given.out, results)

    right: dict[str, list[bool]] = defaultdict(list)
    both, groups, sizes, groups_as_they_came, came = [], [], [], [], []
    for name in DATA_SETS:
        samples = open_dataset(given.data / name).samples
        for sample in samples:
            forwards = packet_sizes(sample.path)
            came += [forwards, forwards.flip(0)]
            groups_as_they_came += [f"{name}/{sample.group}"] * 2
        step = max(1, len(samples) // max(1, given.clips))
        for sample in samples[::step][: given.clips]:
            answers = []
            for _, file in filmed_both_ways(sample.path, given.poses):
                sizes.append(packet_sizes(file))
                answers.append(direction_in(predictor, arrow, file))
            if not answers:
                continue
            groups += [f"{name}/{sample.group}"] * 2
            if None not in answers:
                both.append(f"{name}/{sample.group}")
                right["forwards"].append(answers[0] > 0.5)  # type: ignore[operator]
                right["reversed"].append(answers[1] < 0.5)  # type: ignore[operator]
        print(name, {way: (sum(values), len(values)) for way, values in right.items()}, flush=True)
    if both:
        results["re-encoded alike, direction right"] = {
            "clips": len(both),
            **{f"{way} files": share(torch.tensor(values), both) for way, values in right.items()},
        }
    for title, x, of in (
        ("packet sizes, re-encoded alike", sizes, groups),
        ("packet sizes, files as they came", came, groups_as_they_came),
    ):
        if not x:
            continue
        signs = torch.tensor([1.0, -1.0]).repeat(len(x) // 2).double()
        found_right = ridge_right(torch.stack(x), signs, of)
        results[title] = {"files": len(x), "direction_right": share(found_right, of)}
    print(results, flush=True)
    write()
    for name in DATA_SETS:
        rows, of = mean_scores(predictor, given.data / name, given.poses)
        signs = torch.tensor([1.0, -1.0]).repeat(len(of) // 2).double()
        found_right = ridge_right(torch.stack(rows), signs, of)
        results[f"mean scores of the 16 moments, ridge, {name}"] = {
            "clips": len(of) // 2,
            "direction_right": share(found_right, of),
        }
        print(results, flush=True)
        write()
    if not given.train:
        return

    windows = {
        group: scores_only(clips)
        for group, clips in windows_of_groups(
            [given.data / name for name in DATA_SETS], given.poses
        ).items()
    }
    asked: dict[str, list[tuple[str, PoseClips]]] = defaultdict(list)
    for name in DATA_SETS:
        for sample in open_dataset(given.data / name).samples:
            clips = cut_tracks(poses_of(sample.path, given.poses), predictor.sampling)
            if len(clips):
                main_place = main_window(clips)
                one = PoseClips(
                    clips=scores_only(clips.clips[main_place, :, :17][None]),
                    tracks=(1,),
                    start_seconds=(0.0,),
                    weight=torch.ones(1),
                )
                asked[f"{name}/{sample.group}"].append((f"{name}/{sample.path.name}", one))
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        save_checkpoint(folder, ArrowOfTime(), class_names=DIRECTIONS, preprocess=PoseSampling())
        odds = tuned_log_odds(windows, asked, seed=0, start=folder)
    results["scores of the pose network alone"] = {
        name: share(
            torch.tensor(
                [
                    odds[clip] > 0
                    for g, pairs in asked.items()
                    for clip, _ in pairs
                    if g.startswith(name)
                ]
            ),
            [g for g, pairs in asked.items() for _ in pairs if g.startswith(name)],
        )
        for name in DATA_SETS
    }
    print(results["scores of the pose network alone"])
    write()


def mean_scores(
    predictor: PosePredictor, data: Path, store: Path
) -> tuple[list[Tensor], list[str]]:
    """Return the mean score of the moments of every clip's main window, less its mean over the
    window, as recorded and reversed, and the groups."""
    rows, groups = [], []
    for sample in open_dataset(data).samples:
        clips = cut_tracks(poses_of(sample.path, store), predictor.sampling)
        if len(clips):
            scores = clips.clips[main_window(clips), :, :17, 2].double().mean(1)
            scores = scores - scores.mean()
            rows += [scores, scores.flip(0)]
            groups += [f"{data.name}/{sample.group}"] * 2
    return rows, groups


def scores_only(clips: Tensor) -> Tensor:
    """Return windows with every joint that is seen at one place."""
    place = torch.zeros_like(clips[..., :2])
    return torch.cat((place, clips[..., 2:]), dim=-1)


if __name__ == "__main__":
    main()
