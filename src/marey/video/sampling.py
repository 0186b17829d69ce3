"""Sampling the frames of a clip from a video: pure functions of indices and times.

Legend: L source frames, N frames of the clip, v of V temporal views.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from marey.errors import UserError, unknown_name

KINDS = ("uniform", "equidistant", "random", "segments")
SHORT_POLICIES = ("repeat_last", "loop", "extend", "extend_after", "error")


@dataclass(frozen=True, kw_only=True)
class ClipSampling:
    """How the frames of a clip are chosen; the same object serves training, evaluation, prediction
    and export."""

    kind: str = "uniform"
    """`uniform` (fixed stride), `equidistant` (whole video), `random` (no repetition, sorted; drawn
    per seed, epoch and video in training, per video in evaluation) or `segments` (SSv2, Jester)."""
    num_frames: int = 8
    """Frames per clip (N)."""
    stride_frames: int = 32
    """`uniform` only: distance between neighbouring frames, in source frames
    (at `target_fps`, where that is set)."""
    target_fps: float | None = None
    """`uniform` only: the frame rate `stride_frames` is meant at; a source at another rate is
    strided in proportion."""
    spacing: str = "stride"
    """`uniform` only: `stride` (start + i * stride) or `linspace` (SlowFast, TimeSformer: N points
    over the clip's span)."""
    view_start: str = "spread"
    """`uniform` only: view v of V starts at `spread` delta * v / V (V = 1: frame 0), or `offset`
    (V = 1: centre)."""
    unit: str = "frames"
    """`frames` counts frames; `seconds` takes the frame shown at each time, which differs at
    variable frame rate."""
    short: str = "repeat_last"
    """A video too short: `repeat_last` frame, `loop`, `extend` it (study, before sampling),
    `extend_after`, `error`."""

    def __post_init__(self) -> None:
        for field, value, known in (
            ("sampling kind", self.kind, KINDS),
            ("short-clip policy", self.short, SHORT_POLICIES),
            ("spacing", self.spacing, ("stride", "linspace")),
            ("view start", self.view_start, ("spread", "offset")),
            ("sampling unit", self.unit, ("frames", "seconds")),
        ):
            if value not in known:
                raise unknown_name(field, value, known)
        if self.num_frames < 1 or self.stride_frames < 1:
            raise UserError(
                f"num_frames and stride_frames are counts from 1 up, got {self.num_frames} and "
                f"{self.stride_frames}"
            )
        if self.target_fps is not None and not self.target_fps > 0:
            raise UserError(
                f"target_fps is a rate above 0 in frames per second, got {self.target_fps}"
            )

    def span_frames(self, fps: float | None = None) -> float:
        """Number of source frames the clip covers: N * stride, scaled by fps / target_fps; N for
        the other kinds."""
        if self.kind != "uniform":
            return float(self.num_frames)
        return self._stride(fps) * self.num_frames

    def _stride(self, fps: float | None) -> float:
        if self.target_fps is None:
            return float(self.stride_frames)
        if fps is None or not fps > 0:
            raise UserError(
                f"target_fps={self.target_fps} needs the frame rate of the source, got fps={fps}"
            )
        return self.stride_frames * fps / self.target_fps

    def indices(
        self,
        num_source_frames: int,
        *,
        fps: float | None = None,
        generator: torch.Generator | None = None,
        view: int = 0,
        num_views: int = 1,
        name: str = "",
    ) -> list[int]:
        """Choose the N frames of one clip.

        Args:
            num_source_frames: L, frames in the video.
            fps: its frame rate in frames per second, needed where `target_fps` is set.
            generator: given, the choice is random (training); None, it is fixed (evaluation).
            view, num_views: temporal view v of V, 0-based.
            name: of the video. Without a generator, kind "random" draws from (name, view): other
                frames in other videos of one length, the same ones whenever a video is asked about.

        Returns:
            N indices in [0, L), never decreasing except under `short="loop"`. Under
            `short="extend"` a video shorter than `span_frames` gives indices into the video
            extended to that length (see `video.extension`). Under `short="extend_after"` such a
            video gives only those of its N frames that it has, so fewer than N.

        Raises:
            UserError: if L < 1, the view does not exist, or the video is too short and
                `short="error"`.
        """
        L, N = num_source_frames, self.num_frames
        if L < 1:
            raise UserError(f"a clip needs at least 1 source frame, got {L}")
        if not 0 <= view < num_views:
            raise UserError(f"view counts from 0 to num_views - 1, got view {view} of {num_views}")

        need = math.ceil(self.span_frames(fps))
        if need > L and self.short == "error":
            raise UserError(
                f"the video has {L} frames and the sampler needs {need}; use a smaller "
                "stride_frames or "
                "num_frames, or another short-clip policy (repeat_last, loop, extend)"
            )
        if need > L and self.short == "extend":
            L = need

        if self.kind == "uniform":
            chosen = self._uniform(L, fps, generator, view, num_views)
        elif self.kind == "equidistant":
            chosen = equidistant_indices(L, N, view=view, num_views=num_views)
        elif self.kind == "random":
            chosen = random_indices(L, N, generator or video_generator(name, view))
        else:
            chosen = segment_indices(L, N, generator=generator, view=view, num_views=num_views)

        # Indices beyond the end exist only in a video that is too short.
        if self.short == "loop":
            return [index % L for index in chosen]
        if self.short == "extend_after" and need > L:
            return sorted({index for index in chosen if index < L})
        return [min(index, L - 1) for index in chosen]

    def _uniform(
        self,
        L: int,
        fps: float | None,
        generator: torch.Generator | None,
        view: int,
        num_views: int,
    ) -> list[int]:
        span = self.span_frames(fps)
        start = view_start(
            L, span, view=view, num_views=num_views, rule=self.view_start, generator=generator
        )
        if self.spacing == "linspace":
            # In float32 and truncated, as in the released code.
            return (
                torch.linspace(start, start + span - 1, self.num_frames)
                .clamp(min=0)
                .long()
                .tolist()
            )
        stride = self._stride(fps)
        # Without the small number, 2.9999999 of float arithmetic would become frame 2.
        return [int(start + i * stride + 1e-6) for i in range(self.num_frames)]

    def seconds(
        self,
        duration_seconds: float,
        *,
        fps: float,
        generator: torch.Generator | None = None,
        view: int = 0,
        num_views: int = 1,
        name: str = "",
    ) -> list[float]:
        """Choose the N times of one clip, for sources whose frames are not equally spaced.

        The video is treated as one of constant rate `target_fps` (`fps` where that is None); frame
        i of it is shown at (i + 1/2) / rate, the middle of its time, so that rounding never falls
        on a border.

        Returns:
            N times in seconds from the first frame, in [0, duration_seconds).
        """
        rate = self.target_fps or fps
        length = max(1, round(duration_seconds * rate))
        chosen = self.indices(
            length, fps=rate, generator=generator, view=view, num_views=num_views, name=name
        )
        return [min((index + 0.5) / rate, max(0.0, duration_seconds - 1e-6)) for index in chosen]


def view_start(
    num_source_frames: int,
    span_frames: float,
    *,
    view: int = 0,
    num_views: int = 1,
    rule: str = "spread",
    generator: torch.Generator | None = None,
) -> float:
    """Place a clip of `span_frames` in a video, as SlowFast, TimeSformer and DirecFormer do.

    delta = max(L - span, 0). Training: uniform in [0, delta]. Evaluation, `spread`: delta * v / V,
    so the last of ten views starts at 0.9 delta; `offset` (USE_OFFSET_SAMPLING): floor(delta / 2)
    for one view, else v * floor(delta / (V - 1)).
    """
    delta = max(num_source_frames - span_frames, 0.0)
    if generator is not None:
        return delta * float(torch.rand((), generator=generator, dtype=torch.float64))
    if rule == "spread":
        return delta * view / num_views
    return (
        float(math.floor(delta / 2))
        if num_views == 1
        else float(view * math.floor(delta / (num_views - 1)))
    )


def equidistant_indices(
    num_source_frames: int, num_frames: int, *, view: int = 0, num_views: int = 1
) -> list[int]:
    """Spread N frames over the whole video, the first and last included; further views shift by a
    part of the step.

    One view: round_half_even(i * (L - 1) / (N - 1)), the middle frame for N = 1. V views: view v
    takes the frame at (i + (v + 1/2) / V) / N of the video, so that together the views are again
    equidistant.
    """
    L, N = num_source_frames, num_frames
    if num_views == 1:
        return [int(i) for i in np.round(np.linspace(0, L - 1, N))] if N > 1 else [(L - 1) // 2]
    return [int((i + (view + 0.5) / num_views) * L / N + 1e-6) for i in range(N)]


def random_indices(
    num_source_frames: int, num_frames: int, generator: torch.Generator
) -> list[int]:
    """Draw N frames without repetition, in order of time; where L < N every frame once and then on
    past the end."""
    L, N = num_source_frames, num_frames
    if L < N:
        return list(range(N))
    return sorted(torch.randperm(L, generator=generator)[:N].tolist())


def video_name(path: str | os.PathLike[str]) -> str:
    """Return what tells a video from the others of its data set: its file's and its folder's
    name."""
    return "/".join(Path(path).parts[-2:])


def video_generator(name: str, view: int) -> torch.Generator:
    """Return a generator that depends on a video's name and the temporal view alone."""
    digest = hashlib.sha256(f"{view} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def segment_indices(
    num_source_frames: int,
    num_frames: int,
    *,
    generator: torch.Generator | None = None,
    view: int = 0,
    num_views: int = 1,
) -> list[int]:
    """Take one frame of each of N equal segments, as TimeSformer, DirecFormer and SlowFast do on
    SSv2 and Jester.

    seg = (L - 1) / N; segment i is [round(seg * i), round(seg * (i + 1))], numpy's round
    (half to even). Training draws an integer in the closed interval; evaluation takes the middle,
    rounded down; view v of V takes start + (end - start) * (v + 1) // (V + 1).
    """
    edges = np.round((num_source_frames - 1) / num_frames * np.arange(num_frames + 1)).astype(int)
    chosen = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if generator is not None:
            chosen.append(int(torch.randint(start, end + 1, (), generator=generator)))
        elif num_views == 1:
            chosen.append((start + end) // 2)
        else:
            chosen.append(start + (end - start) * (view + 1) // (num_views + 1))
    return chosen


def frames_at_rate(frame_seconds: Sequence[float], rate_fps: float) -> list[int]:
    """Index of the frame shown at the middle of each tick of a clock of `rate_fps`, over the whole
    video."""
    if not frame_seconds:
        return []
    times = np.asarray(frame_seconds) - frame_seconds[0]
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0 / rate_fps
    ticks = (np.arange(max(1, round((times[-1] + step) * rate_fps))) + 0.5) / rate_fps
    return [
        int(i) for i in np.clip(np.searchsorted(times, ticks, side="right") - 1, 0, len(times) - 1)
    ]
