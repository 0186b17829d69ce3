"""Preprocessing from a video to the input of a model; stored in the checkpoint and used wherever
the model is."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError, unknown_name
from marey.transforms import functional
from marey.video.clip import Clip
from marey.video.decode import VideoReader
from marey.video.extension import extend_frames
from marey.video.sampling import ClipSampling, video_name

LONG = 8
"""Longer side over shorter side from which on only the crops of a picture are resized."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a video becomes the input of a model: sampled frames, resizing, crops, normalisation."""

    sampling: ClipSampling = field(default_factory=ClipSampling)
    """Which frames."""
    short_side: int = 256
    """Short side after resizing, in pixels (`resize_mode="short_side"`, one crop)."""
    image_size: int = 224
    """Height and width of the crop S, in pixels; with three crops the short side is resized to it
    directly, as SlowFast does."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Per-channel mean, in the units after `rescale`."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """Per-channel standard deviation, in the units after `rescale`."""
    rescale: float = 1 / 255
    """Factor on uint8 pixels before the mean is taken off."""
    channel_order: str = "rgb"
    """`rgb`, or `bgr` for checkpoints trained that way."""
    resize_mode: str = "short_side"
    """`short_side` keeps the shape and crops; `stretch` resizes straight to the square, the shape
    lost, nothing cut."""
    interpolation: str = "bilinear"
    """`bilinear`, `bicubic` or `nearest`; the first two antialiased."""
    crops: int = 1
    """Spatial crops per clip: 1 (centre) or 3 (left, centre, right along the longer side)."""

    def __post_init__(self) -> None:
        if self.resize_mode not in ("short_side", "stretch"):
            raise unknown_name("resize mode", self.resize_mode, ("short_side", "stretch"))
        if self.channel_order not in ("rgb", "bgr"):
            raise unknown_name("channel order", self.channel_order, ("rgb", "bgr"))
        if self.interpolation not in functional.INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, functional.INTERPOLATIONS)
        if self.crops not in (1, 3):
            raise UserError(f"there are 1 or 3 spatial crops, got {self.crops}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise UserError(
                f"mean and std are three numbers each and std is above 0, got {self.mean} and "
                f"{self.std}"
            )
        if self.image_size < 1 or (
            self.resize_mode == "short_side" and self.short_side < self.image_size
        ):
            raise UserError(
                f"the short side ({self.short_side}) must be at least the crop ({self.image_size})"
            )
        object.__setattr__(self, "mean", tuple(float(m) for m in self.mean))
        object.__setattr__(self, "std", tuple(float(s) for s in self.std))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, as `config.json` of a checkpoint holds it."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """Build from `to_dict`'s form; an unknown key is an error that names the nearest known
        one."""
        values = dict(values)
        sampling = values.pop("sampling", {})
        for given, owner, kind in (
            (values, cls, "preprocess key"),
            (sampling, ClipSampling, "sampling key"),
        ):
            known = {f.name for f in fields(owner)}
            for key in given:
                if key not in known:
                    raise unknown_name(kind, key, known)
        values.update({key: tuple(values[key]) for key in ("mean", "std") if key in values})
        return cls(sampling=ClipSampling(**sampling), **values)

    def geometry(self, frames: Tensor, num_crops: int | None = None) -> list[Tensor]:
        """Resize and crop, still uint8: one (T, C, S, S) per spatial crop."""
        num_crops = self.crops if num_crops is None else num_crops
        S = self.image_size
        if self.resize_mode == "stretch":
            return [functional.resize(frames, S, S, self.interpolation)] * num_crops
        short_side = S if num_crops > 1 else self.short_side
        height, width = frames.shape[-2:]
        if max(height, width) > LONG * min(height, width):
            places = (0.5,) if num_crops == 1 else (0.0, 0.5, 1.0)
            windows = [functional.window_of(height, width, short_side, S, at) for at in places]
            return [
                functional.resize(functional.crop(frames, *window), S, S, self.interpolation)
                for window in windows
            ]
        frames = functional.resize_short_side(frames, short_side, self.interpolation)
        height, width = frames.shape[-2:]
        offsets = functional.crop_offsets(height, width, S, num_crops)
        return [functional.crop(frames, top, left, S, S) for top, left in offsets]

    def normalise(self, frames: Tensor) -> Tensor:
        """uint8 (..., 3, S, S) to float32 with this mean, std, scale and channel order."""
        return functional.normalise(
            frames, self.mean, self.std, rescale=self.rescale, channel_order=self.channel_order
        )

    def denormalise(self, clip: Tensor) -> Tensor:
        """Float input of the model back to pixel units [0, 255], RGB."""
        return functional.denormalise(
            clip, self.mean, self.std, rescale=self.rescale, channel_order=self.channel_order
        )

    def clip(self, frames: Tensor, num_spatial: int | None = None) -> Tensor:
        """Turn sampled frames into model input.

        Args:
            frames: uint8, (T, C, H, W), RGB.
            num_spatial: spatial crops, 1 or 3; None takes `crops`.

        Returns:
            float32, (V_spatial, T, C, S, S), crop s at index s.
        """
        if (
            frames.dtype != torch.uint8
            or frames.ndim != 4
            or frames.shape[1] != 3
            or len(frames) == 0
        ):
            raise UserError(
                f"expected uint8 RGB frames (T, 3, H, W) with T >= 1, got {frames.dtype} "
                f"{tuple(frames.shape)}"
            )
        return torch.stack([self.normalise(crop) for crop in self.geometry(frames, num_spatial)])

    def sample(
        self,
        reader: VideoReader,
        *,
        generator: torch.Generator | None = None,
        view: int = 0,
        num_views: int = 1,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> Clip:
        """Take one clip of uint8 frames from a video, or from the part [start_seconds, end_seconds)
        of it."""
        return self.sample_views(
            reader,
            [view],
            num_views,
            generator=generator,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
        )[0]

    def sample_views(
        self,
        reader: VideoReader,
        views: list[int],
        num_views: int,
        *,
        generator: torch.Generator | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> list[Clip]:
        """Take several temporal views with one pass through the video.

        Frames keep the file's size where those of all views together take no more than
        `CLIP_BYTES`; larger ones are reduced while they are decoded.
        """
        sampling = self.sampling
        first, stop = reader.frame_range(start_seconds, end_seconds)
        L, name = stop - first, video_name(reader.path)
        wanted = []
        for view in views:
            if sampling.unit == "seconds" and sampling.short != "extend":
                begin, end = reader.frame_seconds[first], reader.end_seconds(stop - 1)
                times = sampling.seconds(
                    end - begin,
                    fps=reader.fps,
                    generator=generator,
                    view=view,
                    num_views=num_views,
                    name=name,
                )
                wanted.append(
                    [i - first for i in reader.indices_at_seconds([begin + t for t in times])]
                )
            else:
                wanted.append(
                    sampling.indices(
                        L,
                        fps=reader.fps,
                        generator=generator,
                        view=view,
                        num_views=num_views,
                        name=name,
                    )
                )
        highest = max(max(indices) for indices in wanted)
        if highest >= L:  # only `short="extend"` looks past the end
            source = reader.frames_at(range(first, stop), held=4 * (highest + 1))
            longer = extend_frames(source.frames, highest + 1)
            return [
                Clip(
                    frames=longer[indices],
                    frame_indices=tuple(first + min(i, L - 1) for i in indices),
                    frame_seconds=tuple(source.frame_seconds[min(i, L - 1)] for i in indices),
                    fps=reader.fps,
                    path=reader.path,
                )
                for indices in wanted
            ]
        if sampling.short == "extend_after" and sampling.span_frames(reader.fps) > L:
            return [self._extend_after(reader, indices, first) for indices in wanted]
        union = sorted({first + i for indices in wanted for i in indices})
        decoded = reader.frames_at(union, held=len(union))
        position = {index: k for k, index in enumerate(union)}
        return [decoded.take([position[first + i] for i in indices]) for indices in wanted]

    def _extend_after(self, reader: VideoReader, indices: list[int], first: int) -> Clip:
        """Extend the few frames that the sampler found in a short video (the study's Table 5)."""
        clip = reader.frames_at([first + i for i in indices], held=len(indices))
        frames = extend_frames(clip.frames, self.sampling.num_frames)
        at = [min(i * len(indices) // len(frames), len(indices) - 1) for i in range(len(frames))]
        return Clip(
            frames=frames,
            frame_indices=tuple(clip.frame_indices[i] for i in at),
            frame_seconds=tuple(clip.frame_seconds[i] for i in at),
            fps=clip.fps,
            path=clip.path,
        )

    def views(
        self,
        reader: VideoReader,
        num_temporal: int = 1,
        num_spatial: int | None = None,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> tuple[Tensor, list[Clip]]:
        """Prepare every view of a video, as the official test protocols count them (1 x 3, 10 x 3).

        Returns:
            float32 (V, T, C, S, S) with view index v * num_spatial + s, and the `num_temporal`
            clips the views were cut from.
        """
        clips = self.sample_views(
            reader,
            list(range(num_temporal)),
            num_temporal,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
        )
        return torch.cat([self.clip(clip.frames, num_spatial) for clip in clips]), clips
