"""Does the answer hold when the video is made worse? The same seconds, clean and changed, under
equal views."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marey.corruptions import corrupt
from marey.errors import UserError, VideoError
from marey.inference.detector import Detector
from marey.labels.embed import readable
from marey.video.decode import open_video
from marey.video.encode import write_video
from marey.web.pictures import shrink, write_picture
from marey.web.task import Task

CHANGES = {
    "gaussian_noise": "noise",
    "motion_blur": "motion blur",
    "defocus_blur": "out of focus",
    "brightness": "too bright",
    "contrast": "low contrast",
    "fog": "fog",
    "rain": "rain",
    "jpeg_compression": "JPEG compression",
    "pixelate": "coarse pixels",
    "h264_crf": "H.264 compression",
    "freeze": "frozen frames",
    "frame_rate": "few frames a second",
}
"""Kind -> its name on the page: of each category what cameras and networks make."""

WINDOW_SECONDS = 3.0
"""The middle of the video that is answered."""
MAX_FPS = 12.5
SIDE = 200
"""Short side of the frames, in pixels."""


def answer_changed(task: Task) -> dict[str, Any]:
    """Answer the same seconds of a video as they are and under each change.

    Every version, the clean one too, is written losslessly and read as a file of its own, so that
    all are sampled in the same views; a difference is the change's.
    """
    severity = int(task.options.get("severity", 3))
    task.facts()
    answerer = task.model()
    if isinstance(answerer, Detector):
        raise UserError(
            f"{task.request['model_name']} finds persons and has no one answer that could change; "
            "choose a model that names the action"
        )
    frames, fps = _window(task)

    def ask(changed: Tensor, name: str) -> dict[str, Any]:
        path = task.folder / f"{name}.mkv"
        write_video(path, changed, fps=fps, codec="ffv1")
        try:
            prediction = answerer(path)
        finally:
            path.unlink(missing_ok=True)
        label, probability = prediction.top(1)[0]
        middle = task.blurred(changed[len(changed) // 2][None])[0]
        nobody = prediction.nobody
        unknown = bool(prediction.trust.get("unknown")) and not nobody
        return {
            "label": "nobody found" if nobody else readable(label),
            "unknown": unknown,
            "probability": round(probability, 4),
            "picture": write_picture(middle, task.folder / f"changed-{name}.jpg"),
        }

    total = 1 + len(CHANGES)
    task.stage("answering the clean seconds", 0, total)
    clean = ask(frames, "clean")
    task.part(clean=clean)
    held = 0
    for number, (kind, name) in enumerate(CHANGES.items(), start=1):
        task.stage(f"answering under {name}", number, total)
        try:
            changed = corrupt(
                frames,
                kind,
                severity=severity,
                generator=torch.Generator().manual_seed(0),
                fps=fps,
            )
            answer = ask(changed, kind)
        except VideoError as error:
            task.part(change={"kind": kind, "name": name, "error": str(error)})
            continue
        same = (answer["label"], answer["unknown"]) == (clean["label"], clean["unknown"])
        held += same
        task.part(change={"kind": kind, "name": name, "held": same, **answer})
    return {"held": held, "of": len(CHANGES), "severity": severity}


def _window(task: Task) -> tuple[Tensor, float]:
    """Return the middle seconds of the video, small, and their frame rate."""
    with open_video(task.upload, max_pixels=task.limits.max_pixels) as reader:
        step = max(1, round(reader.fps / MAX_FPS))
        count = max(1, round(WINDOW_SECONDS * reader.fps))
        start = max(0, (reader.num_frames - count) // 2)
        clips = [
            shrink(clip.frames, SIDE)
            for clip in reader.iterate(start, start + count, step=step, chunk=16)
        ]
        return torch.cat(clips), max(1.0, reader.fps / step)
