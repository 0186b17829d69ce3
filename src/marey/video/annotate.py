"""A copy of a video with answers drawn on every frame, H.264 that plays in browsers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from marey.video.decode import VideoReader, open_video
from marey.video.draw import draw_answers
from marey.video.encode import write_video


def annotate_video(video: str | Path, out: Path, answers: Sequence[tuple[str, float]], note: str = "") -> None:
    """Write the video with the same (label, probability) answers, and a note above them, on every frame."""
    _write(video, out, lambda frame, seconds: draw_answers(frame, answers, note))


def annotate_segments(video: str | Path, out: Path, segments: Sequence[tuple[float, float, str, float]]) -> None:
    """Write the video with, at each moment, the answer of its segment.

    Args:
        segments: (start_seconds, end_seconds, label, probability), in time order.
    """
    def draw(frame: Tensor, seconds: float) -> Tensor:
        now = [segment for segment in segments if segment[0] <= seconds < segment[1]] or segments[-1:]
        return draw_answers(frame, [(label, probability) for _, _, label, probability in now])

    _write(video, out, draw)


def _write(video: str | Path, out: Path, draw: Callable[[Tensor, float], Tensor]) -> None:
    with open_video(video) as reader:
        write_video(out, _drawn(reader, draw), fps=reader.fps)


def _drawn(reader: VideoReader, draw: Callable[[Tensor, float], Tensor]) -> Iterator[Tensor]:
    for clip in reader.iterate():
        for frame, seconds in zip(clip.frames, clip.frame_seconds, strict=True):
            yield draw(frame, seconds)
