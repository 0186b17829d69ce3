"""The arrow of time tuned without labels on a folder of videos, and asked about other groups.

    python -m benchmarks.arrow_tuning --data ../shared/data/ut_interaction --poses POSES \
        --out results/arrow_tuning.json

Every group of a data set is answered by a model that was tuned, by the recipe `arrow_tune`, on the
windows of all other folds' groups. No label is read; only that the videos are played forwards. Each
clip is asked twice about the window with most to say, as `marey order` does: as it was found, and
with its finds reversed in time before the window is cut, where "backwards" is right; a model that
read anything from the way windows are cut would be right in one and wrong in the other. The bundled
model stands beside the tuned one, with the difference over groups. Some clips are asked a third
time, against codec and tracker: the two seconds are decoded, written forwards and backwards with
the same settings, each from its own first frame, and people are looked for in both files anew.
`benchmarks.order` runs the tuning on both sets of real people together.
"""

from __future__ import annotations

import argparse
import datetime
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleave import machine
from benchmarks.real_people import poses_of
from marey.checkpoints.load import load_checkpoint
from marey.datasets.open import open_dataset
from marey.files import read_json, write_json
from marey.inference.direction import fused_log_odds, log_odds
from marey.inference.pose_windows import PoseClips, cut_tracks, main_window, windows_at
from marey.inference.poses import POSE_FPS
from marey.metrics.comparison import paired_difference
from marey.metrics.intervals import proportion_interval
from marey.persons.pose_tracks import read_poses
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.recipes.mini import arrow_tune
from marey.training.config import override
from marey.training.loop import train
from marey.training.tasks.arrow_of_time import directed_task
from marey.transforms.keypoints import NUM_KEYPOINTS
from marey.transforms.pose_clip import PoseSampling, cut_both_ways, normalise_pose
from marey.video.decode import open_video
from marey.video.encode import write_video

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


def filmed_both_ways(video: Path, store: Path) -> Iterator[tuple[str, Path]]:
    """Re-encode the window with most to say of a video alike both ways; nothing where nobody is
    found.

    Yields:
        "forwards", then "reversed", and its file, which is gone at the end.
    """
    sampling = PoseSampling()
    clips = cut_tracks(poses_of(video, store), sampling)
    if not len(clips):
        return
    start = clips.start_seconds[main_window(clips)]
    with open_video(video) as reader:
        inside = [
            place
            for place, second in enumerate(reader.frame_seconds)
            if start - 0.1 <= second <= start + sampling.seconds + 0.1
        ]
        frames, fps = reader.frames_at(inside, held=len(inside)).frames, reader.fps
    with tempfile.TemporaryDirectory() as folder:
        for way, shown in (("forwards", frames), ("reversed", frames.flip(0))):
            file = Path(folder) / f"{way}.mp4"
            write_video(file, shown, fps)
            yield way, file


def filmed_again(video: Path, finder: PoseFinder, store: Path) -> dict[str, PoseClips]:
    """Return the people of the window with most to say, found anew in it as it is re-encoded:
    "forwards" and "reversed"; nothing where nobody is found in one of them."""
    sampling = PoseSampling()
    people = {}
    for way, file in filmed_both_ways(video, store):
        found = read_poses(file, fps=POSE_FPS, finder=finder)
        again = cut_tracks(found, sampling)
        if not len(again):
            return {}
        people[way] = windows_at(found, again.start_seconds[main_window(again)], sampling)
    return people if all(len(found) for found in people.values()) else {}


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
    """Run the benchmark; the result is written after every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--poses", type=Path, default=Path(".cache/real_people"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", type=int, default=60, help="clips that are re-encoded")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)

    sampling, bundled = PoseSampling(), load_checkpoint("marey-arrow")
    windows = windows_of_groups([given.data], given.poses)
    asked: dict[str, list[tuple[str, PoseClips]]] = {group: [] for group in windows}
    samples = open_dataset(given.data).samples
    step, finder = max(1, len(samples) // max(1, given.again)), pose_finder("auto")
    for place, sample in enumerate(samples):
        found = poses_of(sample.path, given.poses)
        group = f"{given.data.name}/{sample.group}"
        for way, shown in (("found forwards", found), ("found reversed", found.reversed())):
            clips = cut_tracks(shown, sampling)
            if len(clips):
                people = windows_at(shown, clips.start_seconds[main_window(clips)], sampling)
                asked[group].append((f"{way}: {sample.path.name}", people))
        if given.again and place % step == 0:
            for way, people in filmed_again(sample.path, finder, given.poses).items():
                asked[group].append((f"again {way}: {sample.path.name}", people))
    before = {
        name: float(fused_log_odds(log_odds(bundled, people.clips), people.weight))
        for pairs in asked.values()
        for name, people in pairs
    }
    group_of = {name: group for group, pairs in asked.items() for name, _ in pairs}
    results: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "command": f"python -m benchmarks.arrow_tuning --data {given.data.name} --poses POSES "
        f"--seeds {given.seeds} --again {given.again}",
        "folds": FOLDS,
        "seeds": {},
    }
    if given.out is not None and given.out.is_file():
        results["conclusion"] = read_json(given.out).get("conclusion", "")
    every: list[dict[str, float]] = []
    for seed in range(given.seeds):
        after: dict[str, float] = {}
        for fold in range(FOLDS):
            after |= tuned_log_odds(windows, asked, seed=seed, only=[fold])
            results["seeds"][str(seed)] = {
                "folds_answered": fold + 1,
                "as they were found": beside(before, [after], group_of, "found"),
                "re-encoded alike, found anew": beside(before, [after], group_of, "again"),
            }
            print(results["seeds"][str(seed)], flush=True)
        every.append(after)
        results["all seeds"] = {
            "seeds": len(every),
            "as they were found": beside(before, every, group_of, "found"),
            "re-encoded alike, found anew": beside(before, every, group_of, "again"),
        }
        if given.out is not None:
            write_json(given.out, results)
    print(results["all seeds"])


def beside(
    before: dict[str, float], after: list[dict[str, float]], group_of: dict[str, str], kind: str
) -> dict[str, Any]:
    """Compare the bundled model with the tuned ones, means over seeds, on the clips of a kind."""
    names = sorted(name for name in after[0] if name.startswith(kind))
    if not names:
        return {}
    groups = [group_of[name] for name in names]
    forwards = torch.tensor([name.startswith(f"{kind} forwards") for name in names])

    def right(odds: dict[str, float]) -> Tensor:
        return ((torch.tensor([odds[name] for name in names]) > 0) == forwards).double()

    old, new = right(before), torch.stack([right(odds) for odds in after]).mean(0)
    return {
        "clips": int(forwards.sum()),
        "groups": len(set(groups)),
        "bundled": right_share(old, groups),
        "tuned": right_share(new, groups),
        "tuned, forwards": round(float(new[forwards].mean()), 4),
        "tuned, reversed": round(float(new[~forwards].mean()), 4),
        "difference": paired_difference(old, new, groups=groups),
    }


def right_share(right: Tensor, groups: Sequence[str]) -> dict[str, Any]:
    """Return the share of right directions with its interval over groups."""
    low, high = proportion_interval(right, groups)
    mean = float(right.double().mean())
    return {"direction_right": round(mean, 4), "interval": [round(low, 4), round(high, 4)]}


if __name__ == "__main__":
    main()
