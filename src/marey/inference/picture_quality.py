"""Whether a video's pictures are too poor to be answered from: noise, blur, the same picture again
and again.

Measured without a model: noise on the video's own pixels, for a resize averages it away; the rest
at a short side of 224 pixels, near what models are shown. The limits lie between what clean and
damaged videos have (`python -m benchmarks.picture_quality`).

Legend: T moments a quarter of a second apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.transforms.functional import resize, resize_short_side

SIDE = 224
"""Short side, in pixels, of the pictures that are measured; smaller ones stay as they are."""
NOISE_SIDE = 448
"""Side of the middle of a picture in which noise is measured, in pixels."""
BLUR_LENGTH = 9
"""Pixels that `blur` averages over."""
COARSE_SIDE = 32
"""Pixels of a side at which moments are compared: noise averages out, a moving hand does not."""
MOVES = 2.0
"""Change of one such pixel, in grey levels, that counts as movement."""
LEAST_DETAIL = 0.1
"""Mean difference between neighbours, in grey levels, below which a picture shows too little to be
called blurred."""
LEAST_MOMENTS = 4
"""Fewer show no standstill."""

MOST_NOISE = 15.0
MOST_BLUR = 0.58
MOST_REPEATED = 0.5
"""Limits, in the units of `PictureQuality`."""


@dataclass(frozen=True, kw_only=True)
class PictureQuality:
    """What a few moments of a video are like; medians over them."""

    noise: float
    """Standard deviation in grey levels (0 to 255)."""
    blur: float
    """0 to 1."""
    repeated: float
    """Share of moments that show what the moment before showed."""

    @property
    def flaws(self) -> tuple[str, ...]:
        """What is wrong, worst first; empty where nothing is."""
        found = {
            "looks very noisy": self.noise > MOST_NOISE,
            "looks blurred": self.blur > MOST_BLUR,
            "stands still for a while": self.repeated >= MOST_REPEATED,
        }
        return tuple(words for words, wrong in found.items() if wrong)


def picture_quality(frames: Tensor) -> PictureQuality:
    """Measure frames, uint8 (T, 3, H, W); all but standstill on every second one."""
    height, width = frames.shape[-2:]
    top, left = max(0, height - NOISE_SIDE) // 2, max(0, width - NOISE_SIDE) // 2
    middle = frames[::2, :, top : top + NOISE_SIDE, left : left + NOISE_SIDE]
    small = _small(frames)
    grey = small[::2].float().mean(1, keepdim=True)
    return PictureQuality(
        noise=float(noise(middle.float().mean(1, keepdim=True)).median()),
        blur=float(blur(grey).median()),
        repeated=repeated(small),
    )


def noise(grey: Tensor) -> Tensor:
    """Return the standard deviation of the noise, (T,), of pictures (T, 1, H, W).

    Immerkaer, "Fast Noise Variance Estimation", 1996: the response to a mask that constant and
    sloping areas do not excite, and that has 36 times the variance of the noise. Ours takes the
    median in place of the mean, which edges raise.
    """
    if min(grey.shape[-2:]) < 3:
        return grey.new_zeros(len(grey))
    mask = grey.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None] / 6
    response = F.conv2d(grey, mask).abs().flatten(1)
    return response.median(1).values / 0.6745  # the median of |x|, x normal with deviation 1


def blur(grey: Tensor) -> Tensor:
    """Return the blur, 0 to 1, (T,), of pictures (T, 1, H, W).

    Crete et al., "The Blur Effect: Perception and Estimation with a New No-reference Perceptual
    Blur Metric", 2007: the share of differences between neighbours that further
    averaging leaves.
    """
    values = []
    for axis in (2, 3):
        size = (BLUR_LENGTH, 1) if axis == 2 else (1, BLUR_LENGTH)
        padding = (BLUR_LENGTH // 2, 0) if axis == 2 else (0, BLUR_LENGTH // 2)
        averaged = F.avg_pool2d(grey, size, stride=1, padding=padding, count_include_pad=False)
        differences, left = grey.diff(dim=axis).abs(), averaged.diff(dim=axis).abs()
        lost = (differences - left).clamp(min=0).flatten(1).sum(1)
        total = differences.flatten(1)
        share = 1 - lost / total.sum(1).clamp(min=1e-6)
        values.append(torch.where(total.mean(1) >= LEAST_DETAIL, share, 0.0))
    return torch.stack(values).amax(0)


def coarse(frames: Tensor) -> Tensor:
    """Return pictures, uint8 (T, 3, H, W), as few grey pixels, float (T, 32, 32)."""
    grey = _small(frames).float().mean(1, keepdim=True)
    return resize(grey, COARSE_SIDE, COARSE_SIDE)[:, 0]


def repeated(frames: Tensor) -> float:
    """Return the share of frames, uint8 (T, 3, H, W), that show what the frame before showed; 0 of
    fewer than `LEAST_MOMENTS`."""
    if len(frames) < LEAST_MOMENTS:
        return 0.0
    changes = coarse(frames).diff(dim=0).abs().flatten(1).amax(1)
    return float((changes <= MOVES).float().mean())


def _small(frames: Tensor) -> Tensor:
    return resize_short_side(frames, SIDE) if min(frames.shape[-2:]) > SIDE else frames
