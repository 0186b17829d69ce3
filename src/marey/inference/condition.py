"""What is wrong with a file, said beside its answer: one still picture, or damage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marey.inference.prediction import Prediction
from marey.transforms.functional import resize
from marey.video.decode import MAX_PIXELS, MAX_SECONDS, VideoReader, open_video

STILL = "one still picture; nothing moves"

LOOKED_AT = 5
"""Frames that are compared, spread over the whole video."""
SIDE = 32
"""Pixels of a side at which they are compared: noise averages out, a moving hand does not."""
MOVES = 2.0
"""Change of one such pixel, in grey levels, that counts as movement."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a look at a file shows."""

    num_frames: int
    still: bool
    """Whether there is one frame, or all that are looked at show the same picture."""
    damaged: str | None
    """What is wrong with the file."""


def condition_of(
    video: str | Path, *, max_pixels: int | None = None, max_seconds: float | None = None
) -> Condition:
    """Look at five frames of a video.

    Raises:
        VideoError: if it cannot be read.
    """
    with open_video(
        video, max_pixels=max_pixels or MAX_PIXELS, max_seconds=max_seconds or MAX_SECONDS
    ) as reader:
        still = is_still(reader)
        return Condition(num_frames=reader.num_frames, still=still, damaged=reader.damaged)


def is_still(reader: VideoReader) -> bool:
    """Return whether nothing moves between five frames of a video."""
    if reader.num_frames == 1:
        return True
    last = reader.num_frames - 1
    indices = sorted({round(last * part / (LOOKED_AT - 1)) for part in range(LOOKED_AT)})
    small = []
    for index in indices:
        frame = reader.frames_at([index], held=LOOKED_AT).frames
        small.append(resize(frame.float().mean(1, keepdim=True), SIDE, SIDE))
        if len(small) > 1 and float((small[-1] - small[0]).abs().max()) > MOVES:
            return False
    return True


def with_condition(prediction: Prediction, condition: Condition) -> Prediction:
    """Return a prediction that says what is wrong with its file.

    A still picture has no action, so nothing about its answer is calibrated: there is no
    prediction set, and no claim that it is like the training data. Nor is there for a damaged file,
    of which only a part was seen.
    """
    trust: dict[str, Any] = dict(prediction.trust)
    if condition.still:
        trust |= {"still": True, "not_calibrated": STILL}
    if condition.damaged:
        parts = [part for part in (condition.damaged, trust.get("damaged")) if part]
        trust["damaged"] = "; ".join(parts)
    if not condition.still and not condition.damaged:
        return prediction
    trust["calibrated"] = False
    trust.pop("set", None)
    if condition.still and trust.get("unknown") is False:
        trust["unknown"] = None
    return replace(prediction, trust=trust, calibration=None)
