"""Many windows of keypoints as one packed folder: what `marey data render poses` writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marey.datasets.worker_pool import worker_pool
from marey.errors import UserError
from marey.files import atomic_folder, write_csv, write_json
from marey.synthetic.poses.library import Library
from marey.synthetic.poses.recordings import read_cmu, read_deepmimic, read_own
from marey.synthetic.poses.scenes import draw_window
from marey.synthetic.poses.vocabulary import OTHER, SHOWN_AS, VOCABULARY
from marey.transforms.pose_clip import PoseSampling

SPLITS = ("train",) * 10 + ("val", "test")
"""Split of window i: entry i modulo the length."""

PART = 500
"""Windows that one process draws at a time."""


Part = tuple[int, NDArray[np.float16], list[tuple[str, str, str]]]
"""First window, keypoints, and of each window label, split and source."""


@dataclass(frozen=True, kw_only=True)
class PosePlan:
    """Everything that decides the bytes of a rendered set, except how many windows it has."""

    cmu: str
    """Folder of the CMU recordings."""
    own: str | None = None
    """Folder of a user's recordings, one folder per action."""
    seed: int = 0
    """Window i is drawn from (seed, i)."""
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
        num_windows: N, in all splits together.
        workers: processes; 0 draws in this one. The bytes do not depend on it.
        progress: wraps the finished parts, for a display; called with them and their number.

    Raises:
        UserError: if `out` holds something else, the number is not positive, or recordings are
            missing.
    """
    out = Path(out)
    if num_windows < 1:
        raise UserError(f"cannot render {num_windows} windows; expected at least 1")
    description = {
        "format": 1,
        "kind": "poses",
        "sampling": asdict(plan.sampling),
        "num_windows": num_windows,
        "plan": {"seed": plan.seed, "other_share": plan.other_share, "own": plan.own is not None},
    }
    if is_rendered(out, description):
        return out

    jobs = [(plan, first, min(first + PART, num_windows)) for first in range(0, num_windows, PART)]
    keypoints = np.zeros((num_windows, *plan.sampling.shape), np.float16)
    rows: list[tuple[str, ...]] = []
    done = _run(jobs, workers)
    for first, part, named in done if progress is None else progress(done, len(jobs)):
        keypoints[first : first + len(part)] = part
        rows += [
            (f"keypoints.npy#{first + i}", label, split, source, str(first + i))
            for i, (label, split, source) in enumerate(named)
        ]
    with atomic_folder(out) as folder:
        np.save(folder / "keypoints.npy", keypoints)
        write_json(folder / "packed.json", description, indent=1)
        write_csv(folder / "manifest.csv", [("path", "label", "split", "group", "row"), *rows])
    return out


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


def _run(jobs: list[tuple[PosePlan, int, int]], workers: int) -> Iterator[Part]:
    if workers < 1 or len(jobs) < 2:
        library = jobs[0][0].library()
        for plan, first, last in jobs:
            yield _draw(plan, first, last, library)
        return
    with worker_pool(workers, "run the command again with fewer --workers") as pool:
        yield from pool.map(_draw_part, jobs)


_LIBRARIES: dict[PosePlan, Library] = {}
"""Of a worker process: read once, used for every part."""


def _draw_part(job: tuple[PosePlan, int, int]) -> Part:
    plan, first, last = job
    if plan not in _LIBRARIES:
        _LIBRARIES[plan] = plan.library()
    return _draw(plan, first, last, _LIBRARIES[plan])


def _draw(plan: PosePlan, first: int, last: int, library: Library) -> Part:
    labels = plan.turns(library)
    keypoints = np.zeros((last - first, *plan.sampling.shape), np.float16)
    named = []
    for index in range(first, last):
        split, turn = plan.window(index)
        rng = np.random.default_rng([plan.seed, index])
        label = OTHER if rng.random() < plan.other_share else labels[turn % len(labels)]
        window, source = draw_window(label, split, library, plan.sampling, rng)
        keypoints[index - first] = window
        named.append((label, split, source))
    return first, keypoints, named
