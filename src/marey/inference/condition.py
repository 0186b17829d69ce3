"""What is wrong with a file, said beside its answer: a still picture, damage, poor pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from marey.inference.picture_quality import MOVES, coarse, picture_quality
from marey.inference.prediction import Prediction
from marey.video.decode import MAX_PIXELS, MAX_SECONDS, VideoReader, open_video

STILL = "one still picture; nothing moves"

LOOKED_AT = 5
"""Frames that are compared, spread over the whole video."""
FIRST_MOVES = 8.0
"""Change that counts as movement from the first frame on: many coders write that one worse."""
MOMENTS, MOMENTS_SECONDS = 8, 0.25
"""Moments around the middle whose pictures are measured, and the time between them."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a look at a file shows."""

    num_frames: int
    still: bool
    """Whether there is one frame, or all that are looked at show the same picture."""
    damaged: str | None
    """What is wrong with the file."""
    flaws: tuple[str, ...] = ()
    """What is wrong with its pictures, see `PictureQuality`."""


def condition_of(
    video: str | Path, *, max_pixels: int | None = None, max_seconds: float | None = None
) -> Condition:
    """Look at five frames of a video and at two seconds in its middle.

    Raises:
        VideoError: if it cannot be read.
    """
    with open_video(
        video, max_pixels=max_pixels or MAX_PIXELS, max_seconds=max_seconds or MAX_SECONDS
    ) as reader:
        still = is_still(reader)
        flaws = () if still else picture_quality(moments_of(reader)).flaws
        return Condition(
            num_frames=reader.num_frames, still=still, damaged=reader.damaged, flaws=flaws
        )


def moments_of(reader: VideoReader) -> Tensor:
    """Return the frames, uint8 (T, 3, H, W), that are shown at up to eight moments around the
    middle of a video."""
    middle = reader.duration_seconds / 2
    seconds = [middle + (k - (MOMENTS - 1) / 2) * MOMENTS_SECONDS for k in range(MOMENTS)]
    indices = sorted(set(reader.indices_at_seconds(seconds)))
    return reader.frames_at(indices, held=MOMENTS).frames


def is_still(reader: VideoReader) -> bool:
    """Return whether nothing moves between five frames of a video."""
    if reader.num_frames == 1:
        return True
    last = reader.num_frames - 1
    indices = sorted({round(last * part / (LOOKED_AT - 1)) for part in range(LOOKED_AT)})
    small = []
    for index in indices:
        small.append(coarse(reader.frames_at([index], held=LOOKED_AT).frames))
        if len(small) == 2 and float((small[1] - small[0]).abs().max()) > FIRST_MOVES:
            return False
        if len(small) > 2 and float((small[-1] - small[1]).abs().max()) > MOVES:
            return False
    return True


def with_condition(prediction: Prediction, condition: Condition) -> Prediction:
    """Return a prediction that says what is wrong with its file.

    A still picture has no action, so nothing about its answer is calibrated: there is no
    prediction set, and no claim that it is like the training data. Nor is there for a damaged file,
    of which only a part was seen, or for pictures with a flaw: trust was measured on better ones.
    """
    trust: dict[str, Any] = dict(prediction.trust)
    if condition.still:
        trust |= {"still": True, "not_calibrated": STILL}
    if condition.damaged:
        parts = [part for part in (condition.damaged, trust.get("damaged")) if part]
        trust["damaged"] = "; ".join(parts)
    if condition.flaws:
        trust["warning"] = "; ".join((*condition.flaws, *filter(None, [trust.get("warning")])))
    if not condition.still and not condition.damaged and not condition.flaws:
        return prediction
    trust["calibrated"] = False
    trust.pop("set", None)
    if (condition.still or condition.flaws) and trust.get("unknown") is False:
        trust["unknown"] = None
    return replace(prediction, trust=trust, calibration=None)
