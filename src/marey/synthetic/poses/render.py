"""Many windows of keypoints as one packed folder: what `marey data render poses` writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.datasets.worker_pool import worker_pool
from marey.errors import UserError
from marey.files import atomic, atomic_folder, read_json, write_csv, write_json
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.synthetic.poses.filmed import film_windows
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.recordings import read_cmu, read_deepmimic, read_own
from marey.synthetic.poses.scenes import draw_window
from marey.synthetic.poses.vocabulary import OTHER, SHOWN_AS, VOCABULARY
from marey.transforms.pose_clip import PoseSampling

SPLITS = ("train",) * 10 + ("val", "test")
"""Split of window i: entry i modulo the length."""

PART = 500
"""Windows that one process draws at a time."""

SCENES = 25
"""Scenes that one process films at a time: about a minute."""

FILMED = "filmed/"
"""Sources of windows that pose networks found in pictures begin so."""

Named = list[tuple[str, str, str]]
"""Of each window label, split and source."""

Part = tuple[NDArray[np.float16], Named]
"""Windows (N, T, P * 17, 3) and their names."""


@dataclass(frozen=True, kw_only=True)
class PosePlan:
    """Everything that decides the bytes of a rendered set, except how many windows it has."""

    cmu: str
    """Folder of the CMU recordings."""
    own: str | None = None
    """Folder of a user's recordings, one folder per action."""
    seed: int = 0
    """Window i is drawn from (seed, i), filmed scene i from (seed, i, 1)."""
    filmed_scenes: int = 0
    """Scenes that are drawn as pictures, in which the pose networks look for people (`filmed`);
    each gives one window of everyone who is found."""
    other_share: float = 0.16
    """Share of windows that show nothing of the vocabulary; the actions share the rest by
    `turns`."""
    sampling: PoseSampling = field(default_factory=lambda: PoseSampling(num_persons=2))

    def library(self) -> Library:
        """Read the recordings.

        Raises:
            UserError: if they are missing.
        """
        own = read_own(self.own) if self.own is not None else []
        return Library(cmu=read_cmu(self.cmu), deepmimic=read_deepmimic(), own=own)

    def labels(self, library: Library) -> list[str]:
        """Return the actions: the vocabulary, and those of the user's own recordings."""
        own = {recording.action for recording in library.own}
        return [*(label for label in VOCABULARY if label != OTHER), *sorted(own - set(VOCABULARY))]

    def turns(self, library: Library) -> list[str]:
        """Return which actions take turns: those that count for one answer together (`SHOWN_AS`)
        come once, all others twice."""
        labels = self.labels(library)
        answers = [SHOWN_AS.get(label, label) for label in labels]
        once = [
            label
            for label, answer in zip(labels, answers, strict=True)
            if answer is None or answers.count(answer) == 1
        ]
        return labels + once

    def label(self, index: int, library: Library, rng: Generator) -> tuple[str, str]:
        """Return label and split of a window or a filmed scene."""
        labels = self.turns(library)
        split, turn = self.window(index)
        return OTHER if rng.random() < self.other_share else labels[turn % len(labels)], split

    def description(self, num_windows: int) -> dict[str, object]:
        """Return what a set of this plan says of itself."""
        filmed = {"filmed_scenes": self.filmed_scenes} if self.filmed_scenes else {}
        return {
            "format": 1,
            "kind": "poses",
            "sampling": asdict(self.sampling),
            "num_windows": num_windows,
            **filmed,
            "plan": {
                "seed": self.seed,
                "other_share": self.other_share,
                "own": self.own is not None,
            },
        }

    def window(self, index: int) -> tuple[str, int]:
        """Return split and turn of a window: how many of its split came before it."""
        split = SPLITS[index % len(SPLITS)]
        before = sum(name == split for name in SPLITS[: index % len(SPLITS)])
        return split, (index // len(SPLITS)) * SPLITS.count(split) + before


def render_poses(
    out: Path | str,
    num_windows: int,
    plan: PosePlan,
    *,
    workers: int = 2,
    progress: Callable[[Iterator[Part], int], Iterator[Part]] | None = None,
) -> Path:
    """Render a packed folder, whole or not at all; one that is there and of the same plan is kept.

    Args:
        out: the folder.
        num_windows: in all splits together; those of filmed scenes come on top.
        workers: processes; 0 draws in this one. The bytes do not depend on it.
        progress: wraps the finished parts, for a display; called with them and their number.

    Raises:
        UserError: if `out` holds something else, the number is not positive, or recordings are
            missing.
    """
    out = Path(out)
    if num_windows < 1:
        raise UserError(f"cannot render {num_windows} windows; expected at least 1")
    description = plan.description(num_windows)
    if is_rendered(out, description):
        return out

    kept = KeptParts(out.with_name(f"{out.name}.parts"), plan)
    jobs = [
        *(Job(plan, False, low, high, None) for low, high in stretches(num_windows, PART)),
        *(
            Job(plan, True, low, high, kept.path(low))
            for low, high in stretches(plan.filmed_scenes, SCENES)
        ),
    ]
    done = _run(jobs, workers)
    arrays: list[NDArray[np.float16]] = []
    rows: list[tuple[str, ...]] = []
    for part, named in done if progress is None else progress(done, len(jobs)):
        arrays.append(part)
        for label, split, source in named:
            row = len(rows)
            rows.append((f"keypoints.npy#{row}", label, split, source, str(row)))
    keypoints = np.concatenate(arrays)
    with atomic_folder(out) as folder:
        np.save(folder / "keypoints.npy", keypoints)
        write_json(folder / "packed.json", description, indent=1)
        write_csv(folder / "manifest.csv", [("path", "label", "split", "group", "row"), *rows])
    kept.remove()
    return out


def stretches(count: int, length: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) of parts of 0 to `count` - 1."""
    return [(first, min(first + length, count)) for first in range(0, count, length)]


class KeptParts:
    """Filmed parts of a set that is not whole yet, so that an interrupted one goes on, also with
    another number of scenes.

    Args:
        folder: beside the set.
        plan: of the set; parts of another one are deleted.
    """

    def __init__(self, folder: Path, plan: PosePlan) -> None:
        self.folder = folder
        if not plan.filmed_scenes:
            return
        about = folder / "set.json"
        mine = {**plan.description(0), "filmed_scenes": None}
        if about.is_file() and read_json(about) != mine:
            self.remove()
        if not about.is_file():
            write_json(about, mine)

    def path(self, first: int) -> Path:
        """Return the file of the part that begins with a scene."""
        return self.folder / f"scenes-{first}.npz"

    def remove(self) -> None:
        """Delete the parts, and the folder if nothing else is in it."""
        if self.folder.is_dir():
            for path in [*self.folder.glob("scenes-*.npz"), self.folder / "set.json"]:
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()


def is_rendered(out: Path, description: dict[str, object]) -> bool:
    """Whether the folder holds what the description says.

    Raises:
        UserError: if it holds something else.
    """
    path = out / "packed.json"
    if path.is_file() and json.loads(path.read_text()) == json.loads(json.dumps(description)):
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out}: there already, and rendered with other settings; choose another --out or "
            "delete it"
        )
    return False


@dataclass(frozen=True)
class Job:
    """Some windows, or filmed scenes, that one process makes."""

    plan: PosePlan
    filmed: bool
    first: int
    last: int
    kept: Path | None
    """Where the part is kept until the set is whole."""


def _run(jobs: list[Job], workers: int) -> Iterator[Part]:
    if workers < 1 or len(jobs) < 2:
        yield from map(_make, jobs)
        return
    with worker_pool(workers, "run the command again with fewer --workers") as pool:
        yield from pool.map(_make, jobs)


@lru_cache(maxsize=1)
def _library(plan: PosePlan) -> Library:
    """Return the recordings, read once in each process."""
    return plan.library()


@lru_cache(maxsize=1)
def _finder() -> PoseFinder:
    """Return what finds people, loaded once in each process."""
    return pose_finder("auto")


def _make(job: Job) -> Part:
    if job.kept is not None and job.kept.is_file():
        with np.load(job.kept, allow_pickle=False) as arrays:
            names = [
                (str(label), str(split), str(source)) for label, split, source in arrays["names"]
            ]
            return arrays["keypoints"], names
    windows, named = [], []
    for window, label, split, source in _windows(job):
        windows.append(window)
        named.append((label, split, source))
    keypoints = np.array(windows, np.float16).reshape(-1, *job.plan.sampling.shape)
    if job.kept is not None:
        with atomic(job.kept) as path, path.open("wb") as file:
            np.savez(file, keypoints=keypoints, names=np.array(named, str).reshape(-1, 3))
    return keypoints, named


def _windows(job: Job) -> Iterator[tuple[NDArray[Any], str, str, str]]:
    """Yield each window (T, P * 17, 3) with label, split and source."""
    plan, library = job.plan, _library(job.plan)
    for index in range(job.first, job.last):
        rng = np.random.default_rng([plan.seed, index, *[1] * job.filmed])
        label, split = plan.label(index, library, rng)
        if job.filmed:
            found = film_windows(label, split, library, plan.sampling, _finder(), rng)
            yield from ((window, name, split, FILMED + source) for window, name, source in found)
        else:
            window, source = draw_window(label, split, library, plan.sampling, rng)
            yield window, label, split, source
