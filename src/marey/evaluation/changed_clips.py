"""The clips of one video that each model is shown, clean and under corruptions; the video is
decoded once.

Pixel kinds change the shown frames: at the model's own size and crop ("model"), at the video's size
before any resize ("source"), or at a fixed size that is resized to the model afterwards. A resize
after the change averages noise away: gaussian noise of the same strength has a third of its size
left at 64 x 64 when it was added at 224. Temporal kinds reorder the source frames before sampling;
codecs and frame averages see all consecutive frames. Models with the same view are shown the same
changed pixels.

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
from marey.errors import UserError
from marey.evaluation.pose_candidate import WHOLE, PoseFrames
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
    resolution); of the ratio `WHOLE` the shape is kept and the short side is `resolution`."""
    if ratio == WHOLE:
        return functional.resize_short_side(frames, resolution)
    if ratio == 0:
        return functional.resize(frames, resolution, resolution)
    frames = functional.resize_short_side(frames, max(resolution, round(resolution * ratio)))
    height, width = frames.shape[-2:]
    top, left = functional.crop_offsets(height, width, resolution, 1)[0]
    return functional.crop(frames, top, left, resolution, resolution).contiguous()


View = tuple[float, int]
"""Crop ratio and side of a picture that is changed; side 0 is the video's own picture."""


def view_of(preprocess: Preprocess | PoseFrames, at: str | int) -> View:
    """Return the view of a model on which pixels are changed.

    Args:
        at: "model", "source", or a side in pixels.

    Raises:
        UserError: if it is none of these.
    """
    if at == "source":
        return 0.0, 0
    if isinstance(preprocess, PoseFrames):
        return WHOLE, preprocess.image_size
    if at == "model":
        return crop_ratio(preprocess), preprocess.image_size
    if isinstance(at, int) and not isinstance(at, bool) and at >= 32:
        return crop_ratio(preprocess), at
    raise UserError(
        f"pixels are changed at 'model', 'source' or a side of 32 pixels or more, got {at!r}"
    )


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """A part of one video, decoded once."""

    name: str
    """Path below the data set."""
    views: dict[View, Tensor]
    """View -> uint8 (L, 3, R, R), or (L, 3, H, W) of the video's own size."""
    indices: list[list[int]]
    """For each model, the frames it is shown."""
    geometry: list[View]
    """For each model, its view."""
    frame_seconds: tuple[float, ...]
    """Time of each source frame, (L,), from 0."""
    fps: float
    """Frames per second."""
    bitrate: float | None
    """Bits per second of the file, scaled to the view's pixels; None where unknown."""


def decode_video(
    name: str,
    sample: Sample,
    preprocesses: Sequence[Preprocess | PoseFrames],
    *,
    at: str | int,
    max_frames: int,
) -> DecodedVideo:
    """Decode a video once and cut the views of all models.

    Args:
        preprocesses: of the models.
        at: where pixels are changed, see `view_of`.
        max_frames: source frames; of a longer video the middle is taken.

    Raises:
        VideoError: if it cannot be read.
    """
    geometry = [view_of(preprocess, at) for preprocess in preprocesses]
    parts: dict[View, list[Tensor]] = {view: [] for view in sorted(set(geometry))}
    with open_video(sample.path) as reader:
        first, stop = reader.frame_range(sample.start_seconds, sample.end_seconds)
        L = min(stop - first, max_frames)
        first += (stop - first - L) // 2
        window: Any = WindowReader(reader, first, L)
        indices = [list(preprocess.sample(window).frame_indices) for preprocess in preprocesses]
        for clip in reader.iterate(first, first + L, chunk=32):
            for (ratio, side), frames in parts.items():
                frames.append(model_view(clip.frames, ratio, side) if side else clip.frames)

        # Bit rates of codecs are relative to the file's own, scaled down to the pixels of the view.
        bitrate = None
        if sample.path.is_file() and reader.duration_seconds > 0:
            sides = [side for _, side in geometry if side]
            share = max(sides) ** 2 / (reader.width * reader.height) if sides else 1.0
            bitrate = 8 * sample.path.stat().st_size / reader.duration_seconds * min(1.0, share)
        return DecodedVideo(
            name=name,
            views={view: torch.cat(frames) for view, frames in parts.items()},
            indices=indices,
            geometry=geometry,
            frame_seconds=window.frame_seconds,
            fps=reader.fps,
            bitrate=bitrate,
        )


def clean_clips(video: DecodedVideo) -> list[Tensor]:
    """Return what each model is shown of the clean video, before `model_pixels`."""
    shown = zip(video.geometry, video.indices, strict=True)
    return [video.views[view][indices] for view, indices in shown]


def changed_clips(video: DecodedVideo, change: Corruption, *, seed: int) -> list[Tensor]:
    """Return what each model is shown under one corruption, uint8 (T, 3, R, R) or of the video's
    own size; models with one view share pixels."""
    seed = video_seed(seed, video.name, change.name, change.severity)
    L = len(next(iter(video.views.values())))
    models = list(zip(video.geometry, video.indices, strict=True))
    # A temporal corruption moves whole frames, so the model's frames are looked up in the new
    # order.
    if change.domain == "order":
        order = change.frame_order(L, generator=torch.Generator().manual_seed(seed))
        return [video.views[view][[order[index] for index in indices]] for view, indices in models]

    # Only a window corruption (a codec, a mean over frames) needs the frames between those that are
    # shown.
    shown: dict[View, tuple[Tensor, dict[int, int]]] = {}
    for view, frames in video.views.items():
        needed = sorted({index for other, indices in models if other == view for index in indices})
        chosen = list(range(L)) if change.domain == "window" else needed
        changed = change(
            frames[chosen],
            generator=torch.Generator().manual_seed(seed),
            fps=video.fps,
            reference_bitrate=video.bitrate,
        )
        shown[view] = changed, {index: row for row, index in enumerate(chosen)}

    clips = []
    for view, indices in models:
        changed, row_of = shown[view]
        clips.append(changed[[row_of[index] for index in indices]])
    return clips


def model_pixels(clip: Tensor, preprocess: Preprocess, *, at: str | int = "model") -> Tensor:
    """Bring a changed clip to the model's size, uint8 (T, 3, S, S); where it was changed `at`
    "source", cut the model's view first."""
    size = preprocess.image_size
    if at == "source":
        clip = model_view(clip, crop_ratio(preprocess), size)
    return functional.resize(clip, size, size, preprocess.interpolation)
