"""Time-stamped segments of a long video by sliding windows; each frame is decoded once, in bounded
memory."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from marey.errors import UserError
from marey.features.video_vectors import joined
from marey.inference.poses import PosePredictor
from marey.inference.prediction import NO_PERSON
from marey.inference.predictor import Predictor
from marey.models.outputs import outputs_of
from marey.persons.pose_tracks import PoseTracks
from marey.transforms.preprocess import Preprocess
from marey.video.decode import VideoReader, open_video
from marey.video.draw import clock

BATCH_WINDOWS = 8
"""Windows of one forward pass; only their frames are held in memory."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The prediction for one window of a long video."""

    start_seconds: float
    end_seconds: float
    probabilities: Tensor
    """(K,), calibrated where the model is; (0,) where a pose model found nobody."""
    unknown: bool | None
    """Whether the OOD score is above its threshold; None where the checkpoint has no OOD
    detector."""

    def label(self, class_names: Sequence[str]) -> str:
        """Return the first label, "unknown" or "no person"."""
        if not len(self.probabilities):
            return NO_PERSON
        return "unknown" if self.unknown else class_names[int(self.probabilities.argmax())]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Neighbouring windows with the same first label."""

    start_seconds: float
    end_seconds: float
    label: str
    """Class name, "unknown", or "no person"."""
    probability: float
    """Mean probability of the first label over the windows; 1 where nobody was found."""

    def to_dict(self) -> dict[str, Any]:
        """Return the segment as JSON types, times rounded to milliseconds."""
        return {
            "start_seconds": round(self.start_seconds, 3),
            "end_seconds": round(self.end_seconds, 3),
            "label": self.label,
            "probability": round(self.probability, 6),
        }


def windows_of(
    duration_seconds: float, window_seconds: float, step_seconds: float
) -> list[tuple[float, float]]:
    """Return the [start, end) times of the windows that cover a video; the last one ends with it.

    >>> windows_of(5.0, 2.0, 1.0)
    [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (3.0, 5.0)]
    """
    if window_seconds <= 0 or step_seconds <= 0:
        raise UserError(
            f"window {window_seconds} s and step {step_seconds} s must both be positive"
        )
    if duration_seconds <= window_seconds:
        return [(0.0, duration_seconds)]
    count = int((duration_seconds - window_seconds) / step_seconds + 1e-9) + 1
    starts = [number * step_seconds for number in range(count)]
    if starts[-1] + window_seconds < duration_seconds - 1e-6:
        starts.append(duration_seconds - window_seconds)
    return [(start, start + window_seconds) for start in starts]


def iterate_windows(
    predictor: Predictor,
    reader: VideoReader,
    *,
    window_seconds: float = 2.0,
    step_seconds: float = 1.0,
) -> Iterator[Window]:
    """Predict for the windows of an open video in order, a few at a time.

    The model's frames are spread evenly over each window. Where the step is a multiple of window /
    frames (as with the defaults and eight frames) neighbouring windows share frames, and each frame
    is decoded once; models of TimeSformer's family also embed each frame once and run only their
    blocks on every window.
    """
    spans = windows_of(reader.duration_seconds, window_seconds, step_seconds)
    num_frames = predictor.preprocess.sampling.num_frames
    kept: dict[int, Tensor] = {}
    embedded: dict[int, Tensor] | None = (
        {} if shares_frames(predictor, spans, step_seconds) else None
    )
    for first in range(0, len(spans), BATCH_WINDOWS):
        batch = spans[first : first + BATCH_WINDOWS]
        chosen = [_frames_in(reader, start, end, num_frames) for start, end in batch]
        kept = _decode_missing(reader, predictor.preprocess, chosen, kept)
        if embedded is not None:
            embedded = _embed_missing(predictor, kept, embedded)
        if embedded is not None:
            clips = [torch.stack([embedded[index] for index in indices]) for indices in chosen]
        else:
            frames = [torch.stack([kept[index] for index in indices]) for indices in chosen]
            clips = [predictor.preprocess.normalise(window) for window in frames]
        measured = [
            joined(predictor.vectors.of_file(reader.path, start_seconds=start, end_seconds=end))
            for start, end in batch
            if predictor.vectors.names
        ]
        outputs = outputs_of(
            predictor.model,
            torch.stack(clips),
            device=predictor.device,
            vectors=torch.stack(measured) if measured else None,
        )
        for row, (start, end) in enumerate(batch):
            alone = {
                key: value[row : row + 1]
                for key, value in outputs.items()
                if isinstance(value, Tensor)
            }
            yield Window(
                start_seconds=start,
                end_seconds=end,
                probabilities=predictor.probabilities(alone["logits"])[0],
                unknown=predictor.unknownness(alone)["unknown"],
            )


def shares_frames(
    predictor: Predictor, spans: Sequence[tuple[float, float]], step_seconds: float
) -> bool:
    """Return whether frames are embedded one by one: windows overlap, one crop, and the model can
    take patches."""
    overlap = len(spans) > 1 and step_seconds < spans[0][1] - spans[0][0]
    return overlap and predictor.preprocess.crops == 1 and hasattr(predictor.model, "embed_frames")


@torch.inference_mode()
def _embed_missing(
    predictor: Predictor, frames: dict[int, Tensor], embedded: dict[int, Tensor]
) -> dict[int, Tensor] | None:
    """Return the patches of all frames: known ones are kept, the others embedded; None if the model
    cannot."""
    missing = [index for index in frames if index not in embedded]
    new: dict[int, Tensor] = {}
    if missing:
        pixels = predictor.preprocess.normalise(torch.stack([frames[index] for index in missing]))
        patches = predictor.model.embed_frames(pixels.to(predictor.device))  # type: ignore[operator]
        if patches is None:
            return None
        new = dict(zip(missing, patches, strict=True))
    return {index: new[index] if index in new else embedded[index] for index in frames}


def _frames_in(reader: VideoReader, start: float, end: float, num_frames: int) -> list[int]:
    """Return the indices of the frames shown at `num_frames` times spread evenly over [start, end)
    seconds."""
    times = [start + (end - start) * (part + 0.5) / num_frames for part in range(num_frames)]
    return [max(0, bisect_right(reader.frame_seconds, time + 1e-6) - 1) for time in times]


def _decode_missing(
    reader: VideoReader,
    preprocess: Preprocess,
    chosen: Sequence[Sequence[int]],
    kept: dict[int, Tensor],
) -> dict[int, Tensor]:
    """Return the frames the windows need, cut to the model's size, uint8 (C, S, S): those already
    decoded are kept, the others decoded a few at a time, the rest dropped."""
    needed = sorted({index for indices in chosen for index in indices})
    missing = [index for index in needed if index not in kept]
    decoded: dict[int, Tensor] = {}
    chunk = reader.chunk_frames(64)
    for first in range(0, len(missing), chunk):
        part = missing[first : first + chunk]
        crops = preprocess.geometry(reader.frames_at(part).frames)[0]
        decoded.update(zip(part, crops, strict=True))
    return {index: kept.get(index, decoded.get(index)) for index in needed}  # type: ignore[misc]


def merge_windows(windows: Sequence[Window], class_names: Sequence[str]) -> list[Segment]:
    """Join neighbouring windows with the same first label into segments that do not overlap.

    Where windows of different labels overlap, the border is the middle of the overlap.
    """
    runs: list[tuple[str, list[Window]]] = []
    for window in windows:
        label = window.label(class_names)
        if runs and runs[-1][0] == label:
            runs[-1][1].append(window)
        else:
            runs.append((label, [window]))
    segments = []
    for number, (label, members) in enumerate(runs):
        start = (
            members[0].start_seconds
            if number == 0
            else _border(runs[number - 1][1][-1], members[0])
        )
        end = (
            members[-1].end_seconds
            if number == len(runs) - 1
            else _border(members[-1], runs[number + 1][1][0])
        )
        sure = [float(w.probabilities.max()) if len(w.probabilities) else 1.0 for w in members]
        segments.append(
            Segment(
                start_seconds=start,
                end_seconds=end,
                label=label,
                probability=sum(sure) / len(sure),
            )
        )
    return segments


def _border(earlier: Window, later: Window) -> float:
    return (earlier.end_seconds + later.start_seconds) / 2


def pose_timeline(
    predictor: PosePredictor,
    found: PoseTracks,
    *,
    window_seconds: float = 2.0,
    step_seconds: float = 1.0,
) -> list[Segment]:
    """Return what people do as segments in time order, from poses that are already found.

    Each window is answered by the model's own windows that lie in it.
    """
    duration = float(found.seconds[-1]) + 1 / found.fps if len(found.seconds) else 0.0
    windows = []
    for start, end in windows_of(duration, window_seconds, step_seconds):
        answer = predictor.answer(found, (start, end))
        windows.append(
            Window(
                start_seconds=start,
                end_seconds=end,
                probabilities=answer.probabilities,
                unknown=answer.unknown,
            )
        )
    return merge_windows(windows, predictor.class_names)


def timeline(
    predictor: Predictor | PosePredictor,
    video: str | Path,
    *,
    window_seconds: float = 2.0,
    step_seconds: float = 1.0,
    **limits: Any,
) -> list[Segment]:
    """Return the actions of a video as segments in time order.

    Raises:
        VideoError: if the video cannot be read.
    """
    if isinstance(predictor, PosePredictor):
        return pose_timeline(
            predictor,
            predictor.read(video, **limits),
            window_seconds=window_seconds,
            step_seconds=step_seconds,
        )
    with open_video(video, **limits) as reader:
        windows = list(
            iterate_windows(
                predictor, reader, window_seconds=window_seconds, step_seconds=step_seconds
            )
        )
    return merge_windows(windows, predictor.class_names)


def write_csv(segments: Sequence[Segment], stream: TextIO) -> None:
    """Write segments as CSV with the columns start_seconds,end_seconds,label,probability."""
    writer = csv.DictWriter(stream, ["start_seconds", "end_seconds", "label", "probability"])
    writer.writeheader()
    writer.writerows(segment.to_dict() for segment in segments)


def write_srt(segments: Sequence[Segment], stream: TextIO) -> None:
    """Write segments as SubRip subtitles, which video players show over the video."""
    for number, segment in enumerate(segments, start=1):
        stream.write(
            f"{number}\n{_srt_time(segment.start_seconds)} --> {_srt_time(segment.end_seconds)}\n"
            f"{segment.label} ({segment.probability:.0%})\n\n"
        )


def _srt_time(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3600000:02d}:{milliseconds // 60000 % 60:02d}:"
        f"{milliseconds // 1000 % 60:02d},{milliseconds % 1000:03d}"
    )


def describe(segment: Segment) -> str:
    """Return one line: times as m:ss.s, label, probability."""
    return (
        f"{clock(segment.start_seconds):>8} - {clock(segment.end_seconds):>8}  {segment.label} "
        f"({segment.probability:.0%})"
    )
