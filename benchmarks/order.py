"""OrderAcc, neighbours and direction, by every method, beside chance and an untrained baseline.

    python -m benchmarks.order --data ../shared/data --windows WINDOWS --poses POSES \
        --out results/order.json

Asked before it was run: (1) is the direction of `marey-arrow` right in .75 of held-out motion
capture and of either set of real people; (2) is OrderAcc, shortest path through the pictures turned
as it says, above that path with a coin flip; (3) does anything but the places of the joints say the
direction (`benchmarks.order_controls`).

Renders: the frames of the test split of `marey data render mocap`, by `marey-mini-order`. Held-out
motion: windows of recordings that neither training nor validation shows (the split "test"
of what `marey data render poses` writes). Real people: of every clip of UT-Interaction and
surv_fight in which somebody was found, the window of 16 moments in 2 seconds with most to say,
as `marey order` takes it, shuffled four times. "path", "sort" and "oriented" read the directed
matrix of `marey-mini`. "appearance" is the shortest path through the pictures at 32 x 32 pixels
(of motion capture: through the keypoints) with a coin flip for its direction. "arrow" turns that
path as `marey-arrow` says. "arrow_tuned" does so by models tuned without labels on the other
groups' clips (`benchmarks.arrow_tuning`), mean over seeds. Intervals are over the groups that each
data set names, of motion capture over recordings.
"""

from __future__ import annotations

import argparse
import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.arrow_tuning import tuned_log_odds, windows_of_groups
from benchmarks.interleave import machine
from benchmarks.real_people import poses_of
from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.datasets.open import open_dataset
from marey.datasets.poses import read_sampling
from marey.evaluation.order import backwards_of, measure_order
from marey.files import read_json, write_json
from marey.inference.answers import AnswerOptions, answer_videos
from marey.inference.direction import direction_of, fused_log_odds, log_odds
from marey.inference.order import pictures_at
from marey.inference.pose_windows import PoseClips, cut_tracks, limb_speed, main_window, windows_at
from marey.inference.poses import PosePredictor
from marey.metrics.intervals import proportion_interval
from marey.metrics.order import chance_order_accuracy, chance_up_to_direction, order_measures
from marey.order.correction import (
    METHODS,
    attention_outputs,
    frame_distances,
    order_matrix,
    permute_frames,
    read_order,
)
from marey.order.path import hamiltonian_path, net_weight
from marey.order.permutations import random_permutations
from marey.papers.direcformer_poses import order_head
from marey.persons.pose_tracks import PoseTracks
from marey.training.tasks.arrow_of_time import first_person, held_out

SHUFFLES = 4
DATA_SETS = ("ut_interaction", "surv_fight")
BEAM = 64
"""Paths kept in the search of the shortest; the exact search of `marey order` takes .2 s a clip."""
MOCAP_WINDOWS = 120
"""Windows of held-out motion capture, equally spaced over all."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The moments of one clip."""

    name: str
    group: str
    model_clip: Tensor
    """(T, P * 17, 3), what `marey-mini` is shown."""
    people: PoseClips
    """Everyone at the same moments."""
    reversed_people: PoseClips
    """Those of the main window after the finds were reversed in time."""
    path: Tensor
    """(T,), the shortest path through the moments as they look, in either direction."""


def real_windows(predictor: PosePredictor, data: Path, store: Path) -> tuple[list[Window], int]:
    """Return the main window of every clip with somebody in it, and the number of clips without."""
    windows, alone = [], 0
    for sample in open_dataset(data).samples:
        found = poses_of(sample.path, store)
        clips = cut_tracks(found, predictor.sampling)
        if not len(clips):
            alone += 1
            continue
        main = main_window(clips)
        start = clips.start_seconds[main]
        times = [start + time for time in predictor.sampling.times.tolist()]
        stored = store / f"{data.name}_{sample.path.name}.path.json"
        if not stored.is_file():
            distances = frame_distances(pictures_at(sample.path, times)[None])
            write_json(stored, {"path": nearly_shortest(distances[0]).tolist()})
        windows.append(
            Window(
                name=f"{data.name}/{sample.path.name}",
                group=str(sample.group),
                model_clip=clips.clips[main],
                people=windows_at(found, start, predictor.sampling),
                reversed_people=main_people(found.reversed(), predictor),
                path=torch.tensor(read_json(stored)["path"]),
            )
        )
    return windows, alone


def main_people(found: PoseTracks, predictor: PosePredictor) -> PoseClips:
    """Return everyone in the window with most to say."""
    clips = cut_tracks(found, predictor.sampling)
    start = clips.start_seconds[main_window(clips)]
    return windows_at(found, start, predictor.sampling)


def nearly_shortest(distances: Tensor) -> Tensor:
    """Return the shortest path (T,) that a beam of `BEAM` finds, of distances (T, T)."""
    return hamiltonian_path(-distances[None], beam_width=BEAM)[0][0]


def captured_windows(folder: Path, split: str = "test") -> list[Window]:
    """Return windows of recordings of motion capture that training does not show."""
    index = open_dataset(folder)
    places, sampling = held_out(index, split), read_sampling(folder)
    clips = first_person(index, places)
    groups = [str(index.samples[place].group) for place in places]
    chosen = torch.linspace(0, len(clips) - 1, min(MOCAP_WINDOWS, len(clips))).long().tolist()
    windows = []
    for place in chosen:
        clip = clips[place]
        one = PoseClips(clips=clip[None], tracks=(1,), start_seconds=(0.0,), weight=torch.ones(1))
        nobody = torch.zeros_like(clip)
        windows.append(
            Window(
                name=f"window {place}",
                group=groups[place],
                model_clip=torch.cat((clip, nobody), dim=1)[:, : 17 * sampling.num_persons],
                people=one,
                reversed_people=replace(one, clips=one.clips.flip(1)),
                path=nearly_shortest(frame_distances(clip[None])[0]),
            )
        )
    return windows


def measure(
    predictor: PosePredictor,
    arrow: Checkpoint,
    windows: Sequence[Window],
    tuned: Sequence[dict[str, float]] = (),
    attention: bool = True,
) -> dict[str, Any]:
    """Measure every method on the windows of one data set.

    Args:
        tuned: of every seed, name of a clip -> log odds of "forwards" of its path, by a model tuned
            on other groups.
        attention: also read the directed matrix, which takes most of the time.
    """
    generator = torch.Generator().manual_seed(0)
    rows: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
    answers = []
    for window in windows:
        T = len(window.path)
        order = random_permutations(SHUFFLES, T, generator)
        # One search for all shuffles: the path as positions of each shuffled clip.
        chronological = window.path
        path = order.argsort(1)[:, chronological]
        if attention:
            weights = directed_matrix(predictor, window, order)
            for method in ("path", "sort"):
                rows[method].append(order_measures(read_order(weights, method), order))
            oriented = turned(path, net_weight(weights, path))
            rows["oriented"].append(order_measures(oriented, order))
        rows["appearance"].append(coin_flip(path, order))
        along = window.people.clips[:, chronological]
        odds = fused_log_odds(log_odds(arrow, along), window.people.weight)
        rows["arrow"].append(order_measures(turned(path, odds.expand(SHUFFLES)), order))
        answers.append(direction_of(arrow, window.people))
        if tuned:
            of_seeds = [
                order_measures(turned(path, torch.full((SHUFFLES,), found[window.name])), order)
                for found in tuned
            ]
            rows["arrow_tuned"].append(
                {name: torch.stack([row[name] for row in of_seeds]).mean(0) for name in of_seeds[0]}
            )
    groups = [window.group for window in windows]
    T = len(windows[0].path)
    told = torch.tensor([answer.told for answer in answers])
    forwards = torch.tensor([answer.forwards > 0.5 for answer in answers])
    return {
        "clips": len(windows),
        "groups": len(set(groups)),
        "moments": T,
        "chance": {
            "order_accuracy": round(chance_order_accuracy(T), 4),
            "up_to_direction": round(chance_up_to_direction(T), 4),
            "direction_right": 0.5,
        },
        "methods": {name: summary(measured, groups) for name, measured in rows.items()},
        "direction_of_marey_arrow": {
            "right": share(forwards, groups),
            "right with the finds reversed before the window is cut": share(
                torch.tensor(
                    [
                        direction_of(arrow, window.reversed_people).forwards < 0.5
                        for window in windows
                    ]
                ),
                groups,
            ),
            "told": share(told, groups),
            "right_where_told": share(
                forwards[told], [g for g, kept in zip(groups, told.tolist(), strict=True) if kept]
            ),
        },
        "direction_right_by": by_thirds(windows, forwards),
    }


def directed_matrix(predictor: PosePredictor, window: Window, order: Tensor) -> Tensor:
    """Return the directed matrices of the shuffled window (S, T, T)."""
    clips = permute_frames(window.model_clip.expand(len(order), -1, -1, -1), order)
    with torch.inference_mode():
        outputs = attention_outputs(predictor.model, clips)
    return order_matrix(outputs["attention_time"], order.shape[1])


def turned(path: Tensor, forwards: Tensor) -> Tensor:
    """Return paths (S, T), turned round where the evidence for "forwards" (S,) is negative."""
    return torch.where(forwards[:, None] < 0, path.flip(1), path)


def coin_flip(path: Tensor, order: Tensor) -> dict[str, Tensor]:
    """Return the measures of paths whose direction is drawn by a coin: right in half of them."""
    measured, other = order_measures(path, order), order_measures(path.flip(1), order)
    return {
        "order_accuracy": (measured["order_accuracy"] + other["order_accuracy"]) / 2,
        "up_to_direction": measured["up_to_direction"],
    }


def by_thirds(windows: Sequence[Window], forwards: Tensor) -> dict[str, list[dict[str, Any]]]:
    """Return how often the direction is right in thirds of the clips: by how fast the limbs of the
    busiest person move, and by how sure its keypoints are."""
    speed, sure = [], []
    for window in windows:
        person = window.people.clips[int(window.people.weight.argmax())]
        speed.append(float(limb_speed(person[None], 8.0)))
        sure.append(float(person[..., 2].mean()))
    found = {}
    for name, values in (("limb_speed_body_heights_a_second", speed), ("mean_score", sure)):
        ordered = torch.tensor(values).argsort()
        found[name] = [
            {
                "from": round(values[int(part[0])], 3),
                "to": round(values[int(part[-1])], 3),
                "direction_right": round(float(forwards[part].float().mean()), 4),
                "clips": len(part),
            }
            for part in ordered.tensor_split(3)
        ]
    return found


def summary(measured: Sequence[dict[str, Tensor]], groups: Sequence[str]) -> dict[str, Any]:
    """Return means and intervals of measures (S,) of every clip."""
    return {
        name: share(torch.stack([row[name].mean() for row in measured]), groups)
        for name in measured[0]
    }


def share(values: Tensor, groups: Sequence[str]) -> dict[str, Any]:
    """Return a mean with its interval over groups."""
    low, high = proportion_interval(values, groups)
    mean = float(values.double().mean())
    return {"mean": round(mean, 4), "interval": [round(low, 4), round(high, 4)]}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--windows", type=Path, required=True)
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--model", default="marey-mini")
    parser.add_argument("--arrow", default="marey-arrow")
    parser.add_argument("--seeds", type=int, default=3, help="of the tuning; 0 leaves it out")
    parser.add_argument(
        "--no-attention", dest="attention", action="store_false", help="leave marey-mini's out"
    )
    parser.add_argument("--renders", type=Path, help="of `marey data render mocap`; the test split")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.poses.mkdir(parents=True, exist_ok=True)

    predictor = PosePredictor(load_checkpoint(given.model))
    arrow = load_checkpoint(given.arrow)
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": "python -m benchmarks.order --data ../shared/data --windows WINDOWS "
        "--poses POSES",
        "model": given.model,
        "direction_model": given.arrow,
        "shuffles": SHUFFLES,
    }
    captured = captured_windows(given.windows)
    head = order_head(
        predictor.model,
        torch.stack([window.model_clip for window in captured[::2]]),
        predictor.checkpoint.tensors.get("permutations"),
    )
    results["order head on held-out motion capture"] = {
        "clips": len(captured[::2]),
        "cross_entropy": round(head["order_loss"], 4),
        "top1_percent": round(head["order_top1"], 4),
        "chance": "ln 1000 = 6.9078, 0.1 percent",
    }
    results["motion capture, held-out recordings"] = measure(
        predictor, arrow, captured, attention=given.attention
    )

    def write() -> None:
        if given.out is not None:
            write_json(given.out, results)

    print(results["motion capture, held-out recordings"], flush=True)
    if given.renders is not None:
        results["renders, marey-mini-order"] = measure_renders(given.renders)
        print(results["renders, marey-mini-order"], flush=True)
    write()
    sets: dict[str, list[Window]] = {}
    alone: dict[str, int] = {}
    for name in DATA_SETS:
        sets[name], alone[name] = real_windows(predictor, given.data / name, given.poses)
        results[name] = {
            "nobody_found": alone[name],
            **measure(predictor, arrow, sets[name], attention=given.attention),
        }
        print(name, results[name], flush=True)
        write()
    if not given.seeds:
        return

    windows = windows_of_groups([given.data / name for name in DATA_SETS], given.poses)
    asked: dict[str, list[tuple[str, PoseClips]]] = defaultdict(list)
    for name, found in sets.items():
        for window in found:
            people = replace(window.people, clips=window.people.clips[:, window.path])
            asked[f"{name}/{window.group}"].append((window.name, people))
    tune = partial(tuned_log_odds, windows, asked, start=given.arrow)
    tuned = []
    for seed in range(given.seeds):
        tuned.append(tune(seed=seed))
        for name in DATA_SETS:
            measured = measure(predictor, arrow, sets[name], tuned)
            results[name] = {"nobody_found": alone[name], **measured}
        print(seed, {name: results[name]["methods"] for name in DATA_SETS}, flush=True)
        write()
    curves = {
        f"{setting} {value}": tune(seed=0, **{setting: value})
        for setting, value in (("steps", 60), ("steps", 500), ("share", 0.25), ("share", 0.5))
    }
    results["learning curve of the tuning, seed 0"] = {
        point: {name: right_of(sets[name], found) for name in DATA_SETS}
        for point, found in {"as the recipe": tuned[0], **curves}.items()
    }
    write()


def measure_renders(folder: Path) -> dict[str, Any]:
    """Return what `marey-mini-order` recovers of the frames of held-out renders, by every method,
    and the untrained baseline; clips of actions played backwards are turned round first."""
    checkpoint = load_checkpoint("marey-mini-order")
    options = AnswerOptions(shuffles=SHUFFLES, backwards=backwards_of(checkpoint))
    answers = answer_videos(checkpoint, open_dataset(folder).split("test"), options)
    return {method: measure_order(answers, method=method) for method in METHODS}


def right_of(windows: Sequence[Window], log_odds_of: dict[str, float]) -> dict[str, Any]:
    """Return how often the direction of a path is right, with its interval."""
    right = []
    for window in windows:
        sign = 1.0 if log_odds_of[window.name] >= 0 else -1.0
        path = window.path if sign > 0 else window.path.flip(0)
        order = torch.arange(len(path))
        right.append(order_measures(path[None], order[None])["direction_right"][0])
    return share(torch.stack(right), [window.group for window in windows])


if __name__ == "__main__":
    main()
