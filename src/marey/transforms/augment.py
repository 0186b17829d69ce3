"""Training augmentation of clips: one random geometry and one random colour for all frames of a
clip."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from marey.errors import UserError, unknown_name
from marey.transforms import functional
from marey.transforms.corruption_augment import MODES, corrupt_for_training
from marey.transforms.preprocess import Preprocess


class Geometry(NamedTuple):
    """What was done to the frame: resized to `size`, cut to `window`, mirrored or not."""

    size: tuple[int, int]
    """(height, width) after resizing, in pixels."""
    window: tuple[int, int, int, int]
    """(top, left, height, width) cut from the resized frame, in pixels."""
    flipped: bool
    """Mirrored left to right after the crop."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random crop, flip and colour for training; ends in the same normalisation as the
    preprocessing it is built on."""

    preprocess: Preprocess = field(default_factory=Preprocess)
    """Gives the output size, mean, std, channel order and interpolation."""
    crop: str = "short_side_jitter"
    """`short_side_jitter` (SlowFast, TimeSformer), `random_resized` (area and shape), or `none`
    (evaluation's geometry)."""
    short_side_range: tuple[int, int] = (256, 320)
    """Short side before the random crop, in pixels, drawn uniformly (`short_side_jitter`)."""
    area_range: tuple[float, float] = (0.5, 1.0)
    """Part of the frame's area the crop takes (`random_resized`)."""
    aspect_range: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of the crop, drawn log-uniformly (`random_resized`)."""
    flip: float = 0.5
    """Probability of mirroring left to right; 0 for data sets with left and right classes, unless
    `flip_pairs` is given."""
    flip_pairs: dict[int, int] | None = None
    """Class that a mirrored clip of a class belongs to, where that is another one
    (Swiping Left -> Swiping Right)."""
    reverse: float = 0.0
    """Probability of playing a clip backwards, for classes in `reverse_pairs` only."""
    reverse_pairs: dict[int, int] | None = None
    """Class that a clip of a class belongs to when played backwards (walk -> walk backwards)."""
    brightness: float = 0.0
    """Brightness factor is drawn from [1 - b, 1 + b]."""
    contrast: float = 0.0
    """Contrast factor is drawn from [1 - c, 1 + c]."""
    saturation: float = 0.0
    """Saturation factor is drawn from [1 - s, 1 + s]."""
    hue: float = 0.0
    """Hue shift is drawn from [-h, h], in turns, at most 0.5."""
    grey: float = 0.0
    """Probability of taking all colour away."""
    corruption: str = "none"
    """Robust training: `none`, `temporal`, `spatial`, `mixed`
    (kinds the robustness test does not hold) or `pixmix`."""
    corruption_probability: float = 0.75
    """Probability that a clip is corrupted."""

    def __post_init__(self) -> None:
        if self.crop not in ("short_side_jitter", "random_resized", "none"):
            raise unknown_name("crop", self.crop, ("short_side_jitter", "random_resized", "none"))
        if not (0 <= self.flip <= 1 and 0 <= self.grey <= 1 and 0 <= self.reverse <= 1):
            raise UserError(
                f"flip, grey and reverse are probabilities in [0, 1], got {self.flip}, {self.grey} "
                f"and {self.reverse}"
            )
        if self.corruption not in MODES:
            raise unknown_name("corruption augmentation", self.corruption, MODES)
        if (
            self.crop == "short_side_jitter"
            and self.short_side_range[0] < self.preprocess.image_size
        ):
            raise UserError(
                f"short_side_range starts at {self.short_side_range[0]}, below the crop of "
                f"{self.preprocess.image_size}; start it at the crop size or above"
            )

    def __call__(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Augment one clip: uint8 (T, 3, H, W) RGB to float32 (T, 3, S, S), ready for the model."""
        height, width = frames.shape[-2:]
        return self.apply(frames, self.geometry(height, width, generator), generator)

    def labelled(
        self, frames: Tensor, label: int, generator: torch.Generator
    ) -> tuple[Tensor, int]:
        """Augment one clip and swap its label where it was mirrored or reversed and the pairs say
        so."""
        height, width = frames.shape[-2:]
        geometry = self.geometry(height, width, generator)
        if geometry.flipped and self.flip_pairs:
            label = self.flip_pairs.get(label, label)
        backwards = (self.reverse_pairs or {}).get(label)
        if backwards is not None and _uniform(0, 1, generator) < self.reverse:
            frames, label = frames.flip(0), backwards
        return self.apply(frames, geometry, generator), label

    def boxes(self, boxes_xyxy_norm: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Take boxes (P, 4) through the same geometry; returns them and the visible part of each
        (P,), 0 is outside."""
        moved, visible = functional.crop_boxes(boxes_xyxy_norm, geometry.size, geometry.window)
        return (functional.flip_boxes(moved) if geometry.flipped else moved), visible

    def geometry(self, height: int, width: int, generator: torch.Generator) -> Geometry:
        """Draw the geometry of one clip of `height` x `width` pixels."""
        S = self.preprocess.image_size
        flipped = _uniform(0, 1, generator) < self.flip
        if self.crop == "none" and self.preprocess.resize_mode == "stretch":
            return Geometry((S, S), (0, 0, S, S), flipped)
        if self.crop == "none":
            size = functional.short_side_size(height, width, self.preprocess.short_side)
            return Geometry(size, (*functional.crop_offsets(*size, S, 1)[0], S, S), flipped)
        if self.crop == "short_side_jitter":
            low, high = self.short_side_range
            size = functional.short_side_size(
                height, width, int(torch.randint(low, high + 1, (), generator=generator))
            )
            top = int(torch.randint(0, size[0] - S + 1, (), generator=generator))
            left = int(torch.randint(0, size[1] - S + 1, (), generator=generator))
            return Geometry(size, (top, left, S, S), flipped)
        return Geometry((height, width), self._resized_window(height, width, generator), flipped)

    def _resized_window(
        self, height: int, width: int, generator: torch.Generator
    ) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = height * width * _uniform(*self.area_range, generator)
            aspect = math.exp(
                _uniform(math.log(self.aspect_range[0]), math.log(self.aspect_range[1]), generator)
            )
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                top = int(torch.randint(0, height - h + 1, (), generator=generator))
                left = int(torch.randint(0, width - w + 1, (), generator=generator))
                return top, left, h, w

        # No draw fitted: the largest central square.
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side

    def apply(self, frames: Tensor, geometry: Geometry, generator: torch.Generator) -> Tensor:
        """Carry out a drawn geometry, then random colour, then the normalisation of
        `preprocess`."""
        S, interpolation = self.preprocess.image_size, self.preprocess.interpolation
        frames = functional.resize(frames, *geometry.size, interpolation)
        frames = functional.resize(functional.crop(frames, *geometry.window), S, S, interpolation)
        if geometry.flipped:
            frames = frames.flip(-1)
        frames = self.colour(frames, generator)
        if self.corruption != "none":
            frames = corrupt_for_training(
                frames, self.corruption, self.corruption_probability, generator
            )
        return self.preprocess.normalise(frames)

    def colour(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Jitter brightness, contrast, saturation and hue, the same for every frame; uint8 in and
        out."""
        if self.brightness:
            frames = tv.adjust_brightness(
                frames, _uniform(1 - self.brightness, 1 + self.brightness, generator)
            )
        if self.contrast:
            frames = tv.adjust_contrast(
                frames, _uniform(1 - self.contrast, 1 + self.contrast, generator)
            )
        if self.saturation:
            frames = tv.adjust_saturation(
                frames, _uniform(1 - self.saturation, 1 + self.saturation, generator)
            )
        if self.hue:
            frames = tv.adjust_hue(frames, _uniform(-self.hue, self.hue, generator))
        if self.grey and _uniform(0, 1, generator) < self.grey:
            frames = tv.rgb_to_grayscale(frames, num_output_channels=3)
        return frames


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
