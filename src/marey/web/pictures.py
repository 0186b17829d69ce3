"""Pictures and previews that the page shows: frames as JPEG, any readable video as H.264."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.errors import VideoError
from marey.persons.blur import Blur
from marey.transforms.functional import resize_short_side
from marey.video.decode import VideoReader, open_video
from marey.video.draw import to_image
from marey.video.encode import write_video
from marey.web.task import Task

QUALITY = 85
"""Of the JPEG files."""
PREVIEW_SIDE = 480
"""Short side of a preview, in pixels; smaller videos keep their size."""
PREVIEW_FPS = 30.0
"""Frames per second of a preview at most."""
PREVIEW = "preview.mp4"


def write_picture(frame: Tensor, path: Path) -> str:
    """Write a uint8 (3, H, W) frame as JPEG and return the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(frame).save(path, "JPEG", quality=QUALITY)
    return path.name


def shrink(frames: Tensor, side: int) -> Tensor:
    """Return frames (T, 3, H, W) with a short side of at most `side` pixels."""
    return resize_short_side(frames, side) if min(frames.shape[-2:]) > side else frames


def write_preview(task: Task) -> dict[str, Any]:
    """Write the visitor's video as H.264 that every browser plays, without sound."""
    facts = task.facts()
    path = task.folder / PREVIEW
    with open_video(task.upload, max_pixels=task.limits.max_pixels) as reader:
        step = max(1, round(facts.fps / PREVIEW_FPS))
        write_video(
            path,
            _preview_frames(task, reader, step),
            fps=max(1.0, reader.fps / step),
            crf=26,
            options={"preset": "veryfast"},
        )
    return {"file": PREVIEW, "seconds": facts.seconds, "damaged": facts.damaged}


def _preview_frames(task: Task, reader: VideoReader, step: int) -> Iterator[Tensor]:
    total = -(-reader.num_frames // step)
    done = 0
    blur = None if task.request.get("blur") is None else Blur(task.request["blur"])
    with contextlib.suppress(VideoError):  # a damaged file: what was read so far is shown
        for clip in reader.iterate(step=step, chunk=16):
            done += clip.num_frames
            task.stage("preparing the preview", done, total)
            frames = clip.frames
            if blur is not None:
                pairs = zip(frames, clip.frame_seconds, strict=True)
                frames = torch.stack([blur(frame, seconds) for frame, seconds in pairs])
            yield shrink(frames, PREVIEW_SIDE)
