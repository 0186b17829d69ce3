"""A copy of a video with the answers drawn on every frame, as H.264 that browsers play."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from marey.inference.detector import Detections, Person
from marey.video.decode import VideoReader, open_video
from marey.video.draw import draw_answers, draw_boxes
from marey.video.encode import write_video

COLOURS = (
    (255, 99, 71),
    (60, 180, 255),
    (120, 220, 90),
    (255, 200, 50),
    (220, 120, 255),
    (80, 230, 220),
    (255, 130, 190),
    (200, 200, 200),
)
"""A person keeps the colour of the track number, modulo 8."""

MIN_SIDE = 480
"""Smaller videos are enlarged to this short side, so that text can be read."""

HOLD_SECONDS = 0.6
"""A box without a partner in the next key frame is drawn no further than this from its own."""

Drawn = tuple[Person, tuple[float, float, float, float]]
"""A person, and where its box is drawn: x1, y1, x2, y2 in [0, 1]."""


def annotate_video(
    video: str | Path, out: Path, answers: Sequence[tuple[str, float]], note: str = ""
) -> None:
    """Write the video with the same (label, probability) answers, and a note above them, on every
    frame."""
    _write(video, out, lambda frame, seconds: draw_answers(frame, answers, note))


def annotate_segments(
    video: str | Path, out: Path, segments: Sequence[tuple[float, float, str, float]]
) -> None:
    """Write the video with, at each moment, the answer of its segment.

    Args:
        segments: (start_seconds, end_seconds, label, probability), in time order.
    """

    def draw(frame: Tensor, seconds: float) -> Tensor:
        now = [segment for segment in segments if segment[0] <= seconds < segment[1]] or segments[
            -1:
        ]
        return draw_answers(frame, [(label, probability) for _, _, label, probability in now])

    _write(video, out, draw)


def _write(video: str | Path, out: str | Path, draw: Callable[[Tensor, float], Tensor]) -> None:
    with open_video(video) as reader:
        write_video(out, _drawn(reader, draw), fps=reader.fps)


def _drawn(reader: VideoReader, draw: Callable[[Tensor, float], Tensor]) -> Iterator[Tensor]:
    for clip in reader.iterate():
        for frame, seconds in zip(clip.frames, clip.frame_seconds, strict=True):
            yield draw(frame, seconds)


def persons_at(detections: Detections, seconds: float) -> list[Drawn]:
    """Return the persons to draw at a time, their boxes interpolated linearly between the two key
    frames around it.

    A person found in only one of the two is drawn in its half of the time between them, for at most
    `HOLD_SECONDS`.
    """
    moments = detections.moments
    if not moments:
        return []
    times = [moment.seconds for moment in moments]
    after = next((i for i, t in enumerate(times) if t > seconds), len(times))
    before = max(after - 1, 0)
    after = min(after, len(times) - 1)
    # `share` is how far the time has gone from the key frame before to the one after, 0 to 1.
    share = (
        0.0
        if times[after] <= times[before]
        else (seconds - times[before]) / (times[after] - times[before])
    )
    share = min(max(share, 0.0), 1.0)
    first = {person.track: person for person in moments[before].persons}
    second = {person.track: person for person in moments[after].persons}
    drawn: list[Drawn] = []
    for track in first.keys() | second.keys():
        a, b = first.get(track), second.get(track)
        if a is not None and b is not None:
            box = tuple(
                (1 - share) * u + share * v
                for u, v in zip(a.box_xyxy_norm, b.box_xyxy_norm, strict=True)
            )
            drawn.append((a if share < 0.5 else b, box))  # type: ignore[arg-type]
        elif a is not None and share < 0.5 and seconds - times[before] <= HOLD_SECONDS:
            drawn.append((a, a.box_xyxy_norm))
        elif b is not None and share >= 0.5 and times[after] - seconds <= HOLD_SECONDS:
            drawn.append((b, b.box_xyxy_norm))
    return sorted(drawn, key=lambda entry: entry[0].track)


def annotate_persons(video: str | Path, out: str | Path, detections: Detections) -> None:
    """Write the video with boxes, track numbers and the one or two most probable actions of each
    person."""

    def draw(frame: Tensor, seconds: float) -> Tensor:
        scale = max(1, -(-MIN_SIDE // min(frame.shape[-2:])))
        if scale > 1:
            big = F.interpolate(
                frame[None].float(), scale_factor=scale, mode="bilinear", align_corners=False
            )[0]
            frame = big.round().clamp(0, 255).byte()
        return draw_persons(frame, persons_at(detections, seconds), detections)

    _write(video, out, draw)


def draw_persons(frame: Tensor, persons: list[Drawn], detections: Detections) -> Tensor:
    """Draw persons on one uint8 (3, H, W) frame of any size."""
    H, W = frame.shape[-2:]
    boxes = [(box[0] * W, box[1] * H, box[2] * W, box[3] * H) for _, box in persons]
    captions = [
        [
            f"{person.track}: {label} {p:.0%}" if row == 0 else f"{label} {p:.0%}"
            for row, (label, p) in enumerate(detections.top(person, 2, 0.3))
        ]
        for person, _ in persons
    ]
    colours = [COLOURS[person.track % len(COLOURS)] for person, _ in persons]
    return draw_boxes(frame, boxes, captions, colours)
