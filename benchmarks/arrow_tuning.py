"""The arrow of time tuned without labels on a folder of videos, and asked about other groups.

Every group of UT-Interaction and surv_fight is answered by a model that was tuned, by the recipe
`arrow_tune`, on the windows of all other folds' groups of both sets. No label is read; only that
the videos are played forwards. `benchmarks.order` runs it.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.real_people import poses_of
from marey.checkpoints.load import load_checkpoint
from marey.datasets.open import open_dataset
from marey.inference.direction import fused_log_odds, log_odds
from marey.inference.pose_windows import PoseClips
from marey.recipes.mini import arrow_tune
from marey.training.config import override
from marey.training.loop import train
from marey.training.tasks.arrow_of_time import directed_task
from marey.transforms.keypoints import NUM_KEYPOINTS
from marey.transforms.pose_clip import PoseSampling, cut_windows, normalise_pose

FOLDS = 5


def windows_of_groups(data: Sequence[Path], store: Path) -> dict[str, Tensor]:
    """Return the windows (N, T, 17, 3) of everyone in every video, by group ("set/group")."""
    sampling = PoseSampling()
    found: dict[str, list[Tensor]] = {}
    for folder in data:
        for sample in open_dataset(folder).samples:
            for track in poses_of(sample.path, store).tracks:
                _, windows = cut_windows(track.seconds, track.keypoints, sampling)
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
) -> dict[str, float]:
    """Return the log odds of "forwards" of every clip, by a model tuned on other folds.

    Args:
        windows: of `windows_of_groups`.
        asked: group -> names of its clips, and their people in the order that is asked about.
        seed: of the tuning.
        start: checkpoint that is tuned.
        steps: of the tuning; None: the recipe's.
        share: of the other folds' groups that is tuned on.
    """
    folds, found = folds_of(sorted(windows)), {}
    for fold in range(FOLDS):
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
