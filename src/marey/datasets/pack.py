"""A copy of a data set made for training: small short side, a key frame every few frames, the same
splits and labels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.manifest import write_manifest
from marey.errors import UserError, VideoError
from marey.files import read_json, untrusted, write_json
from marey.transforms.functional import resize_short_side
from marey.video.decode import VideoReader, open_video
from marey.video.encode import write_video
from marey.video.sampling import frames_at_rate


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """How the copies are made; written beside them, and a folder made otherwise is not added to."""

    short_side: int = 256
    """Short side of the copies, in pixels; a smaller video keeps its size."""
    gop: int = 8
    """A key frame every so many frames: any frame costs at most this many decoded ones."""
    crf: int = 18
    """Quality of x264, lower is better."""
    audio: bool = True
    """Copy the sound where the container takes it."""


@dataclass(frozen=True)
class Packing:
    """What `pack_dataset` did."""

    manifest: Path
    num_written: int
    num_kept: int
    unreadable: dict[str, str]
    """Path -> why; these are left out of the new manifest."""
    bytes_before: int
    bytes_after: int
    pairs: tuple[tuple[Path, Path], ...] = ()
    """(video, its copy), the readable ones, in the data's order."""


def pack_dataset(
    index: DatasetIndex,
    out: Path,
    settings: PackSettings | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[Iterator[Any], int], Iterator[Any]] | None = None,
) -> Packing:
    """Write `out/videos/<path>.mp4` for every video and `out/manifest.csv`; files that are there
    already are kept.

    H.264 without B-frames, yuv420p, times preserved: a video of varying frame rate is brought to
    its average rate, each frame held as long as it was shown. Labels, splits, groups and stretches
    stay as they are.

    Raises:
        UserError: if the set is packed already, or `out` holds copies made with other settings.
    """
    settings = settings or PackSettings()
    if any(sample.row is not None for sample in index.samples):
        raise UserError(f"{index.root}: is packed already; pack the videos it was made from")
    _claim(out, settings)
    sources = list(dict.fromkeys(sample.path for sample in index.samples))
    targets = {source: out / "videos" / (_inside(index, source) + ".mp4") for source in sources}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results: Iterator[Any] = pool.map(
            lambda source: _pack_one(source, targets[source], settings), sources
        )
        outcomes = dict(
            zip(sources, progress(results, len(sources)) if progress else results, strict=True)
        )
    failed = {
        source: outcome
        for source, outcome in outcomes.items()
        if outcome not in ("written", "kept")
    }
    samples = tuple(
        replace(sample, path=targets[sample.path])
        for sample in index.samples
        if sample.path not in failed
    )
    write_manifest(replace(index, samples=samples, root=out), out / "manifest.csv")
    readable = [source for source in sources if source not in failed]
    return Packing(
        manifest=out / "manifest.csv",
        num_written=sum(o == "written" for o in outcomes.values()),
        num_kept=sum(o == "kept" for o in outcomes.values()),
        unreadable={str(source): reason for source, reason in failed.items()},
        bytes_before=sum(_size(source) for source in readable),
        bytes_after=sum(_size(targets[source]) for source in readable),
        pairs=tuple((source, targets[source]) for source in readable),
    )


def _claim(out: Path, settings: PackSettings) -> None:
    out.mkdir(parents=True, exist_ok=True)
    note, described = out / "pack.json", {"format": 1, **settings.__dict__}
    if note.is_file():
        if json.loads(note.read_text(encoding="utf-8")) != described:
            raise UserError(
                f"{out}: holds copies made with other settings (see {note.name}); choose another "
                "--out"
            )
    else:
        write_json(note, described, indent=1)


def _inside(index: DatasetIndex, source: Path) -> str:
    """Name below out/videos: the path below the root; what lies elsewhere gets its parent's
    name."""
    name = index.relative_path(Sample(path=source, label=None))
    return (
        name
        if not os.path.isabs(name) and ".." not in Path(name).parts
        else f"{source.parent.name}/{source.name}"
    )


def _pack_one(source: Path, target: Path, settings: PackSettings) -> str:
    if target.is_file():
        return "kept"
    try:
        with open_video(source, threads=1) as reader:
            order = frames_at_rate(reader.frame_seconds, reader.fps)
            sound = source if settings.audio and source.is_file() else None
            write_video(
                target,
                _small(reader, order, settings.short_side),
                reader.fps,
                crf=settings.crf,
                gop=settings.gop,
                audio_from=sound,
                options={"bf": "0", "threads": "1"},
            )
    except VideoError as error:
        return str(error)
    return "written"


def _small(reader: VideoReader, order: list[int], short_side: int) -> Iterator[Tensor]:
    """Stream the frames of `order` (never decreasing), made smaller, each decoded once."""
    wanted = iter(order)
    index = next(wanted, None)
    for clip in reader.iterate(chunk=16):
        frames = clip.frames
        if min(frames.shape[-2:]) > short_side:
            frames = resize_short_side(frames, short_side)
        picks = []
        while index is not None and index <= clip.frame_indices[-1]:
            picks.append(index - clip.frame_indices[0])
            index = next(wanted, None)
        if picks:
            yield frames[torch.tensor(picks)]


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size


@dataclass(frozen=True)
class Packed:
    """An opened packed folder; frames are read from disk when asked for."""

    array: np.ndarray
    """uint8, (N, T, C, H, W), memory-mapped."""
    fps: float
    path: Path
    """The file of the frames."""

    def frames(self, row: int) -> Tensor:
        """Return clip `row`, uint8 (T, C, H, W), as a copy.

        Raises:
            VideoError: if there is no such clip.
        """
        if not 0 <= row < len(self.array):
            raise VideoError(
                f"{self.path}: has clips 0 to {len(self.array) - 1}, the manifest names clip "
                f"{row}; pack the data again"
            )
        return torch.from_numpy(np.array(self.array[row]))


@lru_cache(maxsize=8)
def open_packed(root: Path) -> Packed:
    """Open a packed folder.

    Raises:
        UserError: if its description or array is missing or of another format.
    """
    description = read_json(root / "packed.json")
    with untrusted(root / "frames.npy", "the frames of a packed folder"):
        return _packed(root, description)


def _packed(root: Path, description: dict[str, Any]) -> Packed:
    if description.get("format") != 1:
        raise UserError(
            f"{root / 'packed.json'}: format {description.get('format')}, expected 1; "
            "pack the data again with this version of marey"
        )
    array = np.load(root / "frames.npy", mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 5:
        raise UserError(
            f"{root / 'frames.npy'}: {array.dtype} with {array.ndim} axes, expected uint8 (N, T, "
            "C, H, W)"
        )
    return Packed(array=array, fps=float(description["fps"]), path=root / "frames.npy")
