"""The clips of one video that each model is shown, clean and under corruptions; the video is
decoded once.

Pixel kinds change the shown frames at `resolution` x `resolution`, the model's own crop of the
picture, which is resized to the model afterwards; temporal kinds reorder the source frames before
sampling; codecs and frame averages see all consecutive frames. Models with the same crop are shown
the same changed pixels.

Legend: L source frames, T shown frames, R pixels of a side of the view, S of the model's input.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marey.corruptions import Corruption
from marey.datasets.index import Sample
from marey.datasets.perturb_plan import video_seed
from marey.transforms import functional
from marey.transforms.preprocess import Preprocess
from marey.video.clip import Clip
from marey.video.decode import VideoReader, open_video


class WindowReader:
    """The frame times of a part of a video, for a sampler that needs no pixels; its frames are
    empty pictures."""

    def __init__(self, reader: VideoReader, first: int, num_frames: int) -> None:
        self.fps, self.path = reader.fps, reader.path
        begin = reader.frame_seconds[first]
        self.frame_seconds = tuple(
            t - begin for t in reader.frame_seconds[first : first + num_frames]
        )
        self._end = reader.end_seconds(first + num_frames - 1) - begin

    def frame_range(
        self, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> tuple[int, int]:
        """Return the whole part."""
        return 0, len(self.frame_seconds)

    def end_seconds(self, index: int) -> float:
        """Return when frame `index` stops being shown."""
        return self.frame_seconds[index + 1] if index + 1 < len(self.frame_seconds) else self._end

    def indices_at_seconds(self, seconds: Sequence[float]) -> list[int]:
        """Return the index of the frame shown at each time."""
        last = len(self.frame_seconds) - 1
        return [min(max(bisect_right(self.frame_seconds, t + 1e-6) - 1, 0), last) for t in seconds]

    def frames_at(self, indices: Sequence[int], *, held: int | None = None) -> Clip:
        """Return empty pictures with the right indices and times."""
        chosen = list(indices)
        return Clip(
            frames=torch.zeros(len(chosen), 3, 1, 1, dtype=torch.uint8),
            frame_indices=tuple(chosen),
            frame_seconds=tuple(self.frame_seconds[i] for i in chosen),
            fps=self.fps,
            path=self.path,
        )


def crop_ratio(preprocess: Preprocess) -> float:
    """Return short side / crop of a model's geometry, 0 where it stretches the whole picture."""
    return (
        0.0
        if preprocess.resize_mode == "stretch"
        else preprocess.short_side / preprocess.image_size
    )


def model_view(frames: Tensor, ratio: float, resolution: int) -> Tensor:
    """Cut the picture that a model with this `crop_ratio` is shown, uint8 (T, 3, resolution,
    resolution)."""
    if ratio == 0:
        return functional.resize(frames, resolution, resolution)
    frames = functional.resize_short_side(frames, max(resolution, round(resolution * ratio)))
    height, width = frames.shape[-2:]
    top, left = functional.crop_offsets(height, width, resolution, 1)[0]
    return functional.crop(frames, top, left, resolution, resolution).contiguous()


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """A part of one video, decoded once."""

    name: str
    """Path below the data set."""
    views: dict[float, Tensor]
    """Crop ratio -> uint8 (L, 3, R, R)."""
    indices: list[list[int]]
    """For each model, the frames it is shown."""
    ratios: list[float]
    """For each model, its crop ratio."""
    fps: float
    """Frames per second."""
    bitrate: float | None
    """Bits per second of the file, scaled to the view's pixels; None where unknown."""


def decode_video(
    name: str,
    sample: Sample,
    preprocesses: Sequence[Preprocess],
    *,
    resolution: int,
    max_frames: int,
) -> DecodedVideo:
    """Decode a video once and cut the views of all models.

    Args:
        preprocesses: of the models.
        resolution: R.
        max_frames: source frames; of a longer video the middle is taken.

    Raises:
        VideoError: if it cannot be read.
    """
    ratios = [crop_ratio(preprocess) for preprocess in preprocesses]
    parts: dict[float, list[Tensor]] = {ratio: [] for ratio in sorted(set(ratios))}
    with open_video(sample.path) as reader:
        first, stop = reader.frame_range(sample.start_seconds, sample.end_seconds)
        L = min(stop - first, max_frames)
        first += (stop - first - L) // 2
        window: Any = WindowReader(reader, first, L)
        indices = [list(preprocess.sample(window).frame_indices) for preprocess in preprocesses]
        for clip in reader.iterate(first, first + L, chunk=32):
            for ratio, frames in parts.items():
                frames.append(model_view(clip.frames, ratio, resolution))

        # Bit rates of codecs are relative to the file's own, scaled down to the pixels of the view.
        bitrate = None
        if sample.path.is_file() and reader.duration_seconds > 0:
            pixels = resolution**2 / (reader.width * reader.height)
            bitrate = 8 * sample.path.stat().st_size / reader.duration_seconds * min(1.0, pixels)
        return DecodedVideo(
            name=name,
            views={ratio: torch.cat(frames) for ratio, frames in parts.items()},
            indices=indices,
            ratios=ratios,
            fps=reader.fps,
            bitrate=bitrate,
        )


def changed_clips(video: DecodedVideo, change: Corruption, *, seed: int) -> list[Tensor]:
    """Return what each model is shown under one corruption, uint8 (T, 3, R, R); models with one
    view share pixels."""
    seed = video_seed(seed, video.name, change.name, change.severity)
    L = len(next(iter(video.views.values())))
    models = list(zip(video.ratios, video.indices, strict=True))
    # A temporal corruption moves whole frames, so the model's frames are looked up in the new
    # order.
    if change.domain == "order":
        order = change.frame_order(L, generator=torch.Generator().manual_seed(seed))
        return [
            video.views[ratio][[order[index] for index in indices]] for ratio, indices in models
        ]

    # Only a window corruption (a codec, a mean over frames) needs the frames between those that are
    # shown.
    shown: dict[float, tuple[Tensor, dict[int, int]]] = {}
    for ratio, view in video.views.items():
        needed = sorted({index for other, indices in models if other == ratio for index in indices})
        chosen = list(range(L)) if change.domain == "window" else needed
        changed = change(
            view[chosen],
            generator=torch.Generator().manual_seed(seed),
            fps=video.fps,
            reference_bitrate=video.bitrate,
        )
        shown[ratio] = changed, {index: row for row, index in enumerate(chosen)}

    clips = []
    for ratio, indices in models:
        changed, row_of = shown[ratio]
        clips.append(changed[[row_of[index] for index in indices]])
    return clips


def model_pixels(clip: Tensor, preprocess: Preprocess) -> Tensor:
    """Resize a view to the model's size, uint8 (T, 3, S, S)."""
    return functional.resize(
        clip, preprocess.image_size, preprocess.image_size, preprocess.interpolation
    )
