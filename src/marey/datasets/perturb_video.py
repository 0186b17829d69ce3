"""Write one perturbed video.

Every output depends only on (video, corruption, seed), so runs in any order, on any number of
processes, and after a kill give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.datasets.perturb_plan import Job, video_seed
from marey.errors import UserError
from marey.transforms.functional import resize_short_side
from marey.video.decode import CHUNK_BYTES, open_video
from marey.video.encode import write_video

WINDOW_FRAMES = 512
"""Frames corrupted at a time, which bounds memory; a codec starts anew at each window."""
STORE_CRF, STORE_OPTIONS = 10, {"x264-params": "mbtree=0:threads=1"}
"""How the copy is stored: H.264 at a quality that adds little to the corruption, without x264's
macroblock tree, whose decisions differ between runs."""


def perturbed_frames(job: Job, reader: Any) -> Iterator[Tensor]:
    """Yield the corrupted clips, uint8 (t, 3, H, W), of one video, `WINDOW_FRAMES` at a time."""
    change = job.corruption
    generator = torch.Generator().manual_seed(
        video_seed(job.seed, job.name, change.name, change.severity)
    )
    is_order = change.domain == "order"
    order = list(range(reader.num_frames))
    if is_order:
        order = change.frame_order(len(order), generator=generator)

    bitrate = None
    if os.path.isfile(job.source) and reader.duration_seconds > 0:
        bitrate = 8 * os.path.getsize(job.source) / reader.duration_seconds
        if job.short_side:
            bitrate *= min(1.0, (job.short_side / min(reader.width, reader.height)) ** 2)

    start_state = generator.get_state()
    for start in range(0, len(order), WINDOW_FRAMES):
        frames = _frames(reader, order[start : start + WINDOW_FRAMES], job.short_side)
        if change.coherence == "clip" and change.domain == "pixels":
            generator.set_state(start_state)  # one draw for the whole video
        yield (
            frames
            if is_order
            else change(frames, generator=generator, fps=reader.fps, reference_bitrate=bitrate)
        )


def _frames(reader: Any, indices: list[int], short_side: int) -> Tensor:
    """Decode frames, a few at a time where they are resized; 0 keeps the file's size."""
    if not short_side:
        return reader.frames_at(indices).frames
    chunk = max(1, CHUNK_BYTES // (reader.width * reader.height * 3))
    parts = [
        resize_short_side(reader.frames_at(indices[first : first + chunk]).frames, short_side)
        for first in range(0, len(indices), chunk)
    ]
    return torch.cat(parts)


def write_one(job: Job) -> dict[str, Any]:
    """Write one perturbed video and return its manifest entry, or its "error"."""
    torch.set_num_threads(1)
    change = job.corruption
    entry = {
        "name": job.name,
        "target": job.target,
        "corruption": change.name,
        "severity": change.severity,
        "profile": change.profile,
        "seed": job.seed,
    }
    try:
        with open_video(job.source) as reader:
            write_video(
                job.target,
                perturbed_frames(job, reader),
                reader.fps,
                crf=STORE_CRF,
                options=STORE_OPTIONS,
            )
    except UserError as error:
        return {**entry, "error": str(error)}
    content = Path(job.target).read_bytes()
    return {
        **entry,
        "error": None,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def estimate_bytes(jobs: Sequence[Job], sample: int = 4) -> int:
    """Estimate the size of all outputs from the start of a few jobs, written to memory's temporary
    folder."""
    if not jobs:
        return 0
    chosen = list(jobs)[:: max(1, len(jobs) // sample)][:sample]
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for job in chosen:
            try:
                with open_video(job.source) as reader:
                    frames = next(perturbed_frames(job, _Beginning(reader, 24)))
                    path = Path(folder) / "sample.mp4"
                    write_video(path, frames, reader.fps, crf=STORE_CRF)
                    total += path.stat().st_size * reader.num_frames / len(frames)
            except UserError:
                continue
    return int(total / len(chosen) * len(jobs))


class _Beginning:
    """The first frames of a reader, for the estimate."""

    def __init__(self, reader: Any, num_frames: int) -> None:
        self.num_frames = min(num_frames, reader.num_frames)
        self.fps, self.width, self.height = reader.fps, reader.width, reader.height
        self.duration_seconds, self.frames_at = reader.duration_seconds, reader.frames_at
