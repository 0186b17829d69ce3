"""The arrow of time tuned without labels on a folder of videos, and asked about other groups.

    python -m benchmarks.arrow_tuning --data ../shared/data/ut_interaction --poses POSES \
        --out results/arrow_tuning.json

Every group of a data set is answered by a model that was tuned, by the recipe `arrow_tune`, on the
windows of all other folds' groups. No label is read; only that the videos are played forwards. Each
clip is asked twice about the window with most to say, as `marey order` does: as it was found, and
with its finds reversed in time before the window is cut, where "backwards" is right; a model that
read anything from the way windows are cut would be right in one and wrong in the other. The bundled
model stands beside the tuned one, with the difference over groups. `benchmarks.order` runs the
same on both sets of real people together.
"""

from __future__ import annotations

import argparse
import datetime
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleave import machine
from benchmarks.real_people import poses_of
from marey.checkpoints.load import load_checkpoint
from marey.datasets.open import open_dataset
from marey.files import write_json
from marey.inference.direction import fused_log_odds, log_odds
from marey.inference.pose_windows import PoseClips, cut_tracks, main_window, windows_at
from marey.metrics.comparison import paired_difference
from marey.metrics.intervals import proportion_interval
from marey.recipes.mini import arrow_tune
from marey.training.config import override
from marey.training.loop import train
from marey.training.tasks.arrow_of_time import directed_task
from marey.transforms.keypoints import NUM_KEYPOINTS
from marey.transforms.pose_clip import PoseSampling, cut_both_ways, normalise_pose

FOLDS = 5


def windows_of_groups(data: Sequence[Path], store: Path) -> dict[str, Tensor]:
    """Return the windows (N, T, 17, 3) of everyone in every video, by group ("set/group")."""
    sampling = PoseSampling()
    found: dict[str, list[Tensor]] = {}
    for folder in data:
        for sample in open_dataset(folder).samples:
            for track in poses_of(sample.path, store).tracks:
                windows = cut_both_ways(track.seconds, track.keypoints, sampling)
                if len(windows):
                    name = f"{folder.name}/{sample.group}"
                    found.setdefault(name, []).append(normalise_pose(windows))
    return {name: torch.cat(parts) for name, parts in found.items()}


def folds_of(groups: Sequence[str]) -> dict[str, int]:
    """Deal the groups of each set to `FOLDS` folds, in an order drawn once."""
    folds: dict[str, int] = {}
    for name in sorted({group.split("/")[0] for group in groups}):
        mine = sorted(group for group in groups if group.split("/")[0] == name)
        random.Random(0).shuffle(mine)
        folds |= {group: place % FOLDS for place, group in enumerate(mine)}
    return folds


def tuned_log_odds(
    windows: dict[str, Tensor],
    asked: dict[str, list[tuple[str, PoseClips]]],
    *,
    seed: int,
    start: str = "marey-arrow",
    steps: int | None = None,
    share: float = 1.0,
    only: Sequence[int] = range(FOLDS),
) -> dict[str, float]:
    """Return the log odds of "forwards" of every clip, by a model tuned on other folds.

    Args:
        windows: of `windows_of_groups`.
        asked: group -> names of its clips, and their people in the order that is asked about.
        seed: of the tuning.
        start: checkpoint that is tuned.
        steps: of the tuning; None: the recipe's.
        share: of the other folds' groups that is tuned on.
        only: folds that are answered.
    """
    folds, found = folds_of(sorted(windows)), {}
    for fold in only:
        others = sorted(group for group in windows if folds[group] != fold)
        random.Random(seed).shuffle(others)
        chosen = others[: max(1, round(share * len(others)))]
        changes = [f"train.seed={seed}", f"model.init_from={start}", "train.tensorboard=false"]
        changes += [] if steps is None else [f"train.max_steps={steps}"]
        config = override(arrow_tune(), [*changes, "train.eval_every=100000"])
        together = torch.cat([windows[group] for group in chosen])
        nobody = torch.zeros(0, PoseSampling().num_frames, NUM_KEYPOINTS, 3)
        task = directed_task(config, together, nobody, PoseSampling())
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder) / "run", task=task, quiet=True)
            tuned = load_checkpoint(Path(folder) / "run" / "last")
        for group, clips in asked.items():
            if folds[group] == fold:
                for name, people in clips:
                    odds = log_odds(tuned, people.clips)
                    found[name] = float(fused_log_odds(odds, people.weight))
    return found


def main() -> None:
    """Run the benchmark; the result is written after every fold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)

    sampling, bundled = PoseSampling(), load_checkpoint("marey-arrow")
    windows = windows_of_groups([given.data], given.poses)
    asked: dict[str, list[tuple[str, PoseClips]]] = {group: [] for group in windows}
    for sample in open_dataset(given.data).samples:
        found = poses_of(sample.path, given.poses)
        group = f"{given.data.name}/{sample.group}"
        for way, shown in (("as found", found), ("reversed", found.reversed())):
            clips = cut_tracks(shown, sampling)
            if len(clips):
                people = windows_at(shown, clips.start_seconds[main_window(clips)], sampling)
                asked[group].append((f"{way}: {sample.path.name}", people))
    before = {
        name: float(fused_log_odds(log_odds(bundled, people.clips), people.weight))
        for pairs in asked.values()
        for name, people in pairs
    }
    group_of = {name: group for group, pairs in asked.items() for name, _ in pairs}
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": f"python -m benchmarks.arrow_tuning --data {given.data.name} --poses POSES",
        "folds": FOLDS,
        "seeds": {},
    }
    for seed in range(given.seeds):
        after: dict[str, float] = {}
        for fold in range(FOLDS):
            after |= tuned_log_odds(windows, asked, seed=seed, only=[fold])
            names = sorted(after)
            groups = [group_of[name] for name in names]
            truth = [name.startswith("as found") for name in names]
            found_so = torch.tensor(truth)
            old, new = (
                (torch.tensor([odds[name] for name in names]) > 0) == found_so
                for odds in (before, after)
            )
            results["seeds"][str(seed)] = {
                "folds_answered": fold + 1,
                "clips": int(found_so.sum()),
                "groups": len(set(groups)),
                "bundled": right_share(old, groups),
                "tuned": right_share(new, groups),
                "tuned, as found": round(float(new[found_so].double().mean()), 4),
                "tuned, reversed": round(float(new[~found_so].double().mean()), 4),
                "difference": paired_difference(old, new, groups=groups),
            }
            print(results["seeds"][str(seed)], flush=True)
            if given.out is not None:
                write_json(given.out, results)


def right_share(right: Tensor, groups: Sequence[str]) -> dict[str, Any]:
    """Return the share of right directions with its interval over groups."""
    low, high = proportion_interval(right, groups)
    mean = float(right.double().mean())
    return {"direction_right": round(mean, 4), "interval": [round(low, 4), round(high, 4)]}


if __name__ == "__main__":
    main()
