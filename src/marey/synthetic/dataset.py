"""Rendering many clips into a packed folder or video files, resumable, and reading a packed
folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.datasets.pack import open_packed
from marey.datasets.worker_pool import worker_pool
from marey.errors import UserError, import_extra
from marey.files import atomic, write_csv, write_json
from marey.synthetic.clip import render_clip
from marey.synthetic.motion import list_actions
from marey.video.encode import write_video

CLIPS_PER_PART = 200


@dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """Everything that decides the bytes of a rendered set, except how many clips it has."""

    size: int = 64
    """Pixels of each side."""
    num_frames: int = 8
    """Frames per clip (T)."""
    fps: float = 4.0
    """Frames per second of a clip."""
    reversals: str = "named"
    """Which actions also exist played backwards: "none", "named" or "all" (`list_actions`)."""
    actions: tuple[str, ...] = ()
    """Only these actions, in this order; empty: all of `list_actions(reversals)`."""
    seed: int = 0
    """Clip i of the set is rendered from (seed, i)."""
    backgrounds: str | None = None
    """Folder of background images."""
    splits: tuple[str, ...] = ("train",) * 8 + ("val", "test")
    """Split of clip i: entry i modulo the length."""

    def class_names(self) -> list[str]:
        """Return the classes in label order."""
        return list(self.actions) or list_actions(self.reversals)

    def clip(self, index: int) -> tuple[str, str, int]:
        """Return action, split and seed of one clip; within a split the actions take turns."""
        names, period = self.class_names(), len(self.splits)
        split = self.splits[index % period]
        before = sum(s == split for s in self.splits[: index % period])
        turn = (index // period) * self.splits.count(split) + before
        return names[turn % len(names)], split, self.seed * 10_000_019 + index


def render_dataset(
    out: Path | str,
    num_clips: int,
    plan: RenderPlan | None = None,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render a packed folder that `open_dataset` and `PackedClips` read; goes on where a stopped
    run ended.

    The folder holds packed.json, manifest.csv, frames.npy, uint8 (N, T, 3, S, S), and boxes.npy,
    float32 (N, T, 4).

    Args:
        out: the folder; rendered before with the same plan, it is kept and only what is missing is
            rendered.
        num_clips: clips in all splits together (N).
        plan: sizes, classes and seed; default `RenderPlan()`.
        workers: processes; 0 renders in this one. The bytes do not depend on it.
        progress: called with (clips done, clips wanted).

    Raises:
        UserError: if `out` was rendered with another plan, num_clips is not positive, or pybullet
            is missing.
    """
    plan, out = plan or RenderPlan(), Path(out)
    if num_clips < 1:
        raise UserError(f"cannot render {num_clips} clips; expected at least 1")
    import_extra("pybullet_data", "mocap", "rendering captured motions")
    _claim(out, plan)
    have = len(np.load(out / "frames.npy", mmap_mode="r")) if (out / "frames.npy").is_file() else 0
    if have >= num_clips and (out / "manifest.csv").is_file():
        return out
    jobs = [
        (out, plan, first, min(first + CLIPS_PER_PART, num_clips))
        for first in range(have, num_clips, CLIPS_PER_PART)
    ]
    missing = [job for job in jobs if not _part(out, "frames", job[2], job[3]).is_file()]
    done = num_clips - sum(last - first for _, _, first, last in missing)
    for count in _run(missing, workers):
        done += count
        if progress is not None:
            progress(done, num_clips)
    for kind in ("boxes", "frames"):
        _assemble(out, kind, num_clips, [(first, last) for _, _, first, last in jobs])
    _write_manifest(out, plan, num_clips)
    for _, _, first, last in jobs:
        for kind in ("boxes", "frames"):
            _part(out, kind, first, last).unlink(missing_ok=True)
    return out


def _run(jobs: list[tuple[Path, RenderPlan, int, int]], workers: int) -> Iterator[int]:
    if workers < 1 or len(jobs) < 2:
        for job in jobs:
            yield _render_part(*job)
        return
    remedy = "run the command again with fewer --workers; finished parts are kept"
    with worker_pool(workers, remedy) as pool:
        for future in as_completed([pool.submit(_render_part, *job) for job in jobs]):
            yield future.result()


def _part(out: Path, kind: str, first: int, last: int) -> Path:
    return out / f"{kind}-{first:07d}-{last:07d}.part.npy"


def _claim(out: Path, plan: RenderPlan) -> None:
    """Write packed.json, or check that the one there says the same."""
    description = json.loads(
        json.dumps(
            {
                "format": 1,
                "fps": plan.fps,
                "kind": "mocap",
                "class_names": plan.class_names(),
                "plan": asdict(plan),
            }
        )
    )
    path = out / "packed.json"
    if path.is_file():
        if json.loads(path.read_text()) != description:
            raise UserError(
                f"{path}: rendered with other settings; choose another --out or delete that folder"
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: not empty and not a rendered folder; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, description, indent=1)


def _render_part(out: Path, plan: RenderPlan, first: int, last: int) -> int:
    torch.set_num_threads(1)
    backgrounds = Path(plan.backgrounds) if plan.backgrounds else None
    frames = np.empty((last - first, plan.num_frames, 3, plan.size, plan.size), dtype=np.uint8)
    boxes = np.empty((last - first, plan.num_frames, 4), dtype=np.float32)
    for i in range(first, last):
        action, split, seed = plan.clip(i)
        rendered = render_clip(
            action,
            seed=seed,
            split=split,
            size=plan.size,
            num_frames=plan.num_frames,
            fps=plan.fps,
            backgrounds=backgrounds,
        )
        frames[i - first], boxes[i - first] = (
            rendered.clip.frames.numpy(),
            rendered.boxes_xyxy.numpy(),
        )
    for kind, array in (("boxes", boxes), ("frames", frames)):
        with atomic(_part(out, kind, first, last)) as temporary:
            np.save(temporary, array)
    return last - first


def _assemble(out: Path, kind: str, num_clips: int, spans: list[tuple[int, int]]) -> None:
    """Join what is there and the new parts into one array file, then put it in place."""
    sample = np.load(_part(out, kind, *spans[0]), mmap_mode="r")
    shape = (num_clips, *sample.shape[1:])
    with atomic(out / f"{kind}.npy") as temporary:
        joined = np.lib.format.open_memmap(temporary, mode="w+", dtype=sample.dtype, shape=shape)
        if spans[0][0]:
            joined[: spans[0][0]] = np.load(out / f"{kind}.npy", mmap_mode="r")
        for first, last in spans:
            joined[first:last] = np.load(_part(out, kind, first, last), mmap_mode="r")
        joined.flush()


def _write_manifest(out: Path, plan: RenderPlan, num_clips: int) -> None:
    rows = [("path", "label", "split", "group")]
    for i in range(num_clips):
        action, split, seed = plan.clip(i)
        rows.append((f"frames.npy#{i}", action, split, f"seed{seed}"))
    write_csv(out / "manifest.csv", rows)


class PackedClips(torch.utils.data.Dataset[dict[str, Any]]):
    """The clips of a rendered folder as they are: `{"frames": uint8 (T, 3, S, S), "label": int,
    "sample": row}`.

    Args:
        folder: what `render_dataset` wrote.
        split: keep only this split; None keeps all.

    Raises:
        UserError: if the folder is not a rendered one or has no clip of the split.
    """

    def __init__(self, folder: Path | str, split: str | None = None):
        self.folder = Path(folder)
        self.packed = open_packed(self.folder)
        with open(self.folder / "manifest.csv", newline="") as file:
            rows = [
                (i, row)
                for i, row in enumerate(csv.DictReader(file))
                if split in (None, row["split"])
            ]
        if not rows:
            raise UserError(
                f"{folder}: no clip of split '{split}'; expected one of train, val, test"
            )
        self.class_names: list[str] = json.loads((self.folder / "packed.json").read_text())[
            "class_names"
        ]
        self.rows = [i for i, _ in rows]
        self.labels = [self.class_names.index(row["label"]) for _, row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "frames": self.packed.frames(self.rows[index]),
            "label": self.labels[index],
            "sample": self.rows[index],
        }

    def boxes(self, index: int) -> Tensor:
        """Return the boxes float (T, 4) of one clip, pixels, zeros where no person is seen."""
        boxes = np.load(self.folder / "boxes.npy", mmap_mode="r")
        return torch.from_numpy(np.array(boxes[self.rows[index]]))


def render_videos(
    out: Path | str,
    num_clips: int,
    plan: RenderPlan | None = None,
    *,
    codec: str = "h264",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the clips of a plan as video files, `<out>/<split>/<class>/<number>.mp4`; existing
    files are kept."""
    plan, out = plan or RenderPlan(), Path(out)
    for i in range(num_clips):
        action, split, seed = plan.clip(i)
        path = out / split / action.replace(" ", "_") / f"{i:06d}.mp4"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            rendered = render_clip(
                action,
                seed=seed,
                split=split,
                size=plan.size,
                num_frames=plan.num_frames,
                fps=plan.fps,
                backgrounds=Path(plan.backgrounds) if plan.backgrounds else None,
            )
            write_video(path, rendered.clip.frames, plan.fps, codec=codec)
        if progress is not None:
            progress(i + 1, num_clips)
    return out
