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

import av
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
    """Yield the clips, uint8 (t, 3, H, W), of one video, `WINDOW_FRAMES` at a time.

    Where the job names spans, frames outside them are left as they are, and the frames of a span
    are changed as if they were the whole video.
    """
    change = job.corruption
    generator = torch.Generator().manual_seed(
        video_seed(job.seed, job.name, change.name, change.severity)
    )
    if job.spans is None:
        yield from _changed(job, reader, range(reader.num_frames), generator)
        return
    clean = 0
    for span in frame_spans(job.spans, reader.num_frames, reader.fps):
        yield from _windows(reader, list(range(clean, span.start)), job.short_side)
        yield from _changed(job, reader, span, generator)
        clean = span.stop
    yield from _windows(reader, list(range(clean, reader.num_frames)), job.short_side)


def frame_spans(spans: Sequence[tuple[float, float]], num_frames: int, fps: float) -> list[range]:
    """Return the frames of stretches in seconds, each at least one, those that touch as one."""
    found: list[range] = []
    for start_seconds, end_seconds in sorted(spans):
        first = min(max(round(start_seconds * fps), 0), num_frames - 1)
        last = min(max(round(end_seconds * fps), first + 1), num_frames)
        if found and first <= found[-1].stop:
            found[-1] = range(found[-1].start, max(last, found[-1].stop))
        else:
            found.append(range(first, last))
    return found


def _changed(job: Job, reader: Any, frames: range, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the corrupted clips of some frames."""
    change = job.corruption
    is_order = change.domain == "order"
    order = list(frames)
    if is_order:
        order = [frames[place] for place in change.frame_order(len(order), generator=generator)]

    bitrate = None
    if os.path.isfile(job.source) and reader.duration_seconds > 0:
        bitrate = 8 * os.path.getsize(job.source) / reader.duration_seconds
        if job.short_side:
            bitrate *= min(1.0, (job.short_side / min(reader.width, reader.height)) ** 2)

    start_state = generator.get_state()
    for clip in _windows(reader, order, job.short_side):
        if change.coherence == "clip" and change.domain == "pixels":
            generator.set_state(start_state)  # one draw for the whole video
        yield (
            clip
            if is_order
            else change(clip, generator=generator, fps=reader.fps, reference_bitrate=bitrate)
        )


def _windows(reader: Any, indices: list[int], short_side: int) -> Iterator[Tensor]:
    """Yield frames, `WINDOW_FRAMES` at a time."""
    for start in range(0, len(indices), WINDOW_FRAMES):
        yield _frames(reader, indices[start : start + WINDOW_FRAMES], short_side)


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
        sound = job.source if has_sound(job.source) else None
        try:
            _write(job, sound)
        except UserError:
            if sound is None:
                raise
            _write(job, None)  # a damaged sound must not lose the pictures
            sound = ""
    except UserError as error:
        return {**entry, "error": str(error)}
    content = Path(job.target).read_bytes()
    return {
        **entry,
        "error": None,
        "video_seed": video_seed(job.seed, job.name, change.name, change.severity),
        "sound": "none" if sound is None else "kept" if sound else "lost",
        "source_sha256": digest_of(job.source),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _write(job: Job, sound: str | None) -> None:
    with open_video(job.source) as reader:
        write_video(
            job.target,
            perturbed_frames(job, reader),
            reader.fps,
            crf=STORE_CRF,
            audio_from=sound,
            options=STORE_OPTIONS,
        )


def has_sound(source: str) -> bool:
    """Return whether a file has a stream of sound; a folder of frames has none."""
    if not os.path.isfile(source):
        return False
    try:
        with av.open(f"file:{source}", metadata_errors="ignore") as container:
            return bool(container.streams.audio)
    except av.error.FFmpegError:
        return False


def digest_of(source: str) -> str:
    """Return the SHA-256 of a video file, "" for a folder of frames."""
    if not os.path.isfile(source):
        return ""
    with open(source, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
