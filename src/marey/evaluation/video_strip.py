"""A few frames of a video in a row, as HTML that carries its own pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from torchvision.io import encode_jpeg

from marey.errors import VideoError
from marey.persons.blur import Blur
from marey.transforms.functional import resize_short_side
from marey.video.decode import open_video

STRIP_FRAMES = 4
STRIP_SIDE = 120
"""Short side of a picture, in pixels."""


def video_strip(
    path: str | Path,
    *,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    blur: Blur | None = None,
) -> str:
    """Return `STRIP_FRAMES` frames spread over a video as HTML images; what is wrong with it, where
    it cannot be read.

    Args:
        start_seconds, end_seconds: the stretch; None: from the start, to the end.
        blur: makes people unrecognisable.
    """
    try:
        with open_video(path) as reader:
            first, stop = reader.frame_range(start_seconds, end_seconds)
            step = (stop - first) / STRIP_FRAMES
            wanted = sorted({first + int((k + 0.5) * step) for k in range(STRIP_FRAMES)})
            frames = reader.frames_at(wanted, held=STRIP_FRAMES).frames
    except VideoError as error:
        return html.escape(str(error))
    if blur is not None:
        frames = blur.pictures(frames)
    pictures = ""
    for frame in resize_short_side(frames, STRIP_SIDE):
        data = base64.b64encode(bytes(encode_jpeg(frame).tolist())).decode()
        pictures += f"<img alt='' src='data:image/jpeg;base64,{data}'>"
    return pictures
