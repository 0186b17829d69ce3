"""Blur corruptions: defocus, motion, zoom, Gaussian, and the average of neighbouring frames.

Radii are pixels at a short side of 224 and scale with the frame. Values are float32 in [0, 255],
truncated at the end.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.corruptions.pixels import map_chunks, side_scale, truncate


def disk_kernel(radius: float, alias_sigma: float) -> Tensor:
    """Return the anti-aliased disk of ImageNet-C's defocus blur, cut to its non-zero square, (k, k)
    float64, sum 1.

    A disk on a 17 x 17 grid (2 radius + 1 beyond radius 8), normalised, then smoothed by a 3 x 3
    (5 x 5) Gaussian that reflects at the border of the grid.
    """
    reach, taps = (8, 3) if radius <= 8 else (math.ceil(radius), 5)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (axis[:, None].square() + axis.square() <= radius**2).double()
    disk /= disk.sum()

    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    line = torch.exp(-offsets.square() / (2 * alias_sigma**2))
    smoother = torch.outer(line, line) / line.sum() ** 2
    padded = F.pad(disk[None, None], [taps // 2] * 4, mode="reflect")
    kernel = F.conv2d(padded, smoother[None, None])[0, 0]

    # Rows of zeros at the border cost time in the convolution and change nothing.
    spare = reach
    for edge in range(reach):
        if kernel[edge].abs().max() > 1e-9:
            spare = edge
            break
    return kernel[spare : kernel.shape[0] - spare, spare : kernel.shape[1] - spare]


@lru_cache(maxsize=32)
def _disk_spectrum(
    radius: float, alias_sigma: float, height: int, width: int, device: torch.device
) -> Tensor:
    """Return the conjugate spectrum of the disk on a padded frame, so that a product correlates."""
    return (
        torch.fft.rfft2(disk_kernel(radius, alias_sigma), s=(height, width))
        .conj()
        .to(torch.complex64)
        .to(device)
    )


def _good_length(length: int) -> int:
    """Return the smallest length >= `length` whose only factors are 2, 3 and 5."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def defocus_blur(frames: Tensor, *, radius: float, alias_sigma: float) -> Tensor:
    """Correlate every channel with a disk, mirrored at the border (edge pixel not repeated).

    Same for every frame. Computed by FFT in float32: equal to the published sum within rounding.
    """
    radius = max(1.0, radius * side_scale(frames))
    H, W = frames.shape[-2:]
    reach = disk_kernel(radius, alias_sigma).shape[0] // 2
    padded_size = (_good_length(H + 2 * reach), _good_length(W + 2 * reach))
    spectrum = _disk_spectrum(radius, alias_sigma, *padded_size, frames.device)

    def change(chunk: Tensor) -> Tensor:
        padded = F.pad(chunk.float(), [reach] * 4, mode="reflect")
        blurred = torch.fft.irfft2(
            torch.fft.rfft2(padded, s=padded_size).mul_(spectrum), s=padded_size
        )
        # Truncation must not turn 41.9999 of float arithmetic into 41.
        return truncate(blurred[..., :H, :W].add_(1e-3))

    return map_chunks(change, frames)


def motion_taps(radius: float, sigma: float, degrees: float) -> list[tuple[float, int, int]]:
    """Return (weight, dy, dx) of each tap: half a Gaussian over 2 radius + 1 whole pixels along a
    line.

    ImageMagick's motion blur as `imagecorruptions` writes it; output (y, x) shows input
    (y - dy, x - dx).
    """
    width = 2 * round(radius) + 1
    weights = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(width)]
    rise, run = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))

    # ceil(v - 0.5) rounds halves down, as ImageMagick does.
    return [
        (weight / sum(weights), -math.ceil(i * rise - 0.5), -math.ceil(i * run - 0.5))
        for i, weight in enumerate(weights)
    ]


def motion_blur_at(frame: Tensor, *, radius: float, sigma: float, degrees: float) -> Tensor:
    """Blur one frame (C, H, W) along a line at `degrees`; beyond the border the edge pixel
    repeats."""
    _, H, W = frame.shape
    taps = motion_taps(radius, sigma, degrees)
    top, bottom = max(dy for _, dy, _ in taps), -min(dy for _, dy, _ in taps)
    left, right = max(dx for _, _, dx in taps), -min(dx for _, _, dx in taps)
    padded = F.pad(frame.float()[None], [left, right, top, bottom], mode="replicate")[0]

    blurred = torch.zeros(frame.shape, dtype=torch.float32, device=frame.device)
    for weight, dy, dx in taps:
        # The released code also stops at the first tap beyond the frame.
        if abs(dy) >= H or abs(dx) >= W:
            break
        blurred.add_(padded[:, top - dy : top - dy + H, left - dx : left - dx + W], alpha=weight)
    return truncate(blurred.add_(1e-3))


def motion_blur(frames: Tensor, *, radius: float, sigma: float, generator: Generator) -> Tensor:
    """Blur every frame along a line whose angle is drawn anew for each frame from U(-45, 45)
    degrees."""
    scale = side_scale(frames)
    degrees = (
        torch.rand(len(frames), generator=generator, device=generator.device)
        .mul_(90)
        .sub_(45)
        .tolist()
    )
    return torch.stack(
        [
            motion_blur_at(
                frame, radius=max(1.0, radius * scale), sigma=max(0.3, sigma * scale), degrees=angle
            )
            for frame, angle in zip(frames, degrees, strict=True)
        ]
    )


def neighbour_average(frames: Tensor, *, half_window: int) -> Tensor:
    """Replace source frame i by the mean of frames i - c to i + c - 1
    (Yi et al.: motion blur on consecutive frames).

    The source drops the first and last c frames; ours keeps them, averaging the frames of the
    window that exist.
    """
    T = frames.shape[0]
    # total[i] is the sum of the frames before i, so any window is one difference.
    total = torch.zeros((T + 1, *frames.shape[1:]), dtype=torch.int32, device=frames.device)
    torch.cumsum(frames, 0, dtype=torch.int32, out=total[1:])

    first = torch.arange(T, device=frames.device).sub(half_window).clamp_(min=0)
    last = torch.arange(T, device=frames.device).add(half_window).clamp_(max=T)
    count = (last - first).view(-1, 1, 1, 1)
    return ((total[last] - total[first]) // count).to(torch.uint8)


def zoom_blur(frames: Tensor, *, stop: float, step: float) -> Tensor:
    """Average the frame with itself zoomed into its centre by 1, 1 + step, ... up to below `stop`.

    Same for every frame. Each zoom crops ceil(side / zoom) and resizes bilinearly, corners aligned.
    """
    H, W = frames.shape[-2:]
    factors = np.arange(1, stop, step)

    def change(chunk: Tensor) -> Tensor:
        clean = chunk.float()
        total = clean.clone()
        for factor in factors:
            h, w = math.ceil(H / factor), math.ceil(W / factor)
            top, left = (H - h) // 2, (W - w) // 2
            size = (round(h * factor), round(w * factor))
            zoomed = F.interpolate(
                clean[..., top : top + h, left : left + w],
                size=size,
                mode="bilinear",
                align_corners=True,
            )
            # ceil makes the crop a little larger than the frame after zooming: cut it to the
            # middle.
            trim_y, trim_x = (size[0] - H) // 2, (size[1] - W) // 2
            total += zoomed[..., trim_y : trim_y + H, trim_x : trim_x + W]
        # The clean frame counts once more beside zoom factor 1, as published.
        return truncate(total.div_(len(factors) + 1).add_(1e-3))

    return map_chunks(change, frames)


@lru_cache(maxsize=32)
def _gaussian_matrix(size: int, sigma: float, device: torch.device) -> Tensor:
    """Return G (size, size) with blurred = G x: a Gaussian cut at 4 sigma, edge pixels repeated."""
    reach = int(4 * sigma + 0.5)
    weights = torch.exp(
        -torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * sigma**2)
    )
    weights /= weights.sum()

    # Row i gathers from i - reach to i + reach; indices beyond the border fall on the edge pixel.
    source = (torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)).clamp_(0, size - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, source, weights.expand(size, -1))
    return matrix.float().to(device)


def gaussian_blur(frames: Tensor, *, sigma: float) -> Tensor:
    """Blur every frame by a Gaussian of `sigma` pixels, written as one matrix product per axis."""
    sigma = sigma * side_scale(frames)
    rows = _gaussian_matrix(frames.shape[-2], sigma, frames.device)
    columns = _gaussian_matrix(frames.shape[-1], sigma, frames.device).T.contiguous()
    return map_chunks(lambda chunk: truncate((rows @ (chunk.float() @ columns)).add_(1e-3)), frames)
