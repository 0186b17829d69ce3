"""Noise corruptions: every frame, pixel and channel has its own draw, as in UCF101-P and its like.

Random numbers come by inverse transform of 16 random bits (14 for Poisson) through a table: the
distribution function is off by less than 2**-16 (2**-14), far below one grey level, and it is many
times faster than drawing floats.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Generator, Tensor

from marey.corruptions.pixels import map_chunks, random_int16, truncate

_POISSON_BITS = 14


@lru_cache(maxsize=4)
def _normal_quantiles(device: torch.device) -> Tensor:
    """Return the 65,536 equally likely values of a standard normal, scaled to variance 1."""
    levels = (torch.arange(65_536, dtype=torch.float64) + 0.5) / 65_536
    quantiles = torch.special.ndtri(levels)
    # Cutting the tails off makes the variance a little too small.
    return (quantiles / quantiles.square().mean().sqrt()).float().to(device)


def _normal(shape: torch.Size, generator: Generator, device: torch.device) -> Tensor:
    """Draw a standard normal, (shape) float32."""
    index = random_int16(shape, generator, device).flatten().int().add_(32_768)
    return _normal_quantiles(device).index_select(0, index).view(shape)


def gaussian_noise(frames: Tensor, *, std: float, generator: Generator) -> Tensor:
    """Add N(0, std) to each value in [0, 1].  x' = x + n"""
    return map_chunks(
        lambda chunk: truncate(
            _normal(chunk.shape, generator, chunk.device).mul_(255 * std).add_(chunk)
        ),
        frames,
    )


def speckle_noise(frames: Tensor, *, std: float, generator: Generator) -> Tensor:
    """Add noise in proportion to the value.  x' = x + x n, n ~ N(0, std)"""
    return map_chunks(
        lambda chunk: truncate(
            _normal(chunk.shape, generator, chunk.device).mul_(std).add_(1).mul_(chunk)
        ),
        frames,
    )


def impulse_noise(frames: Tensor, *, amount: float, generator: Generator) -> Tensor:
    """Set a share `amount` of the values to 0 or 255, half each (salt and pepper)."""
    # The lowest and the highest `half` of the 65,536 values are hit.
    half = round(amount * 32_768)

    def change(chunk: Tensor) -> Tensor:
        bits = random_int16(chunk.shape, generator, chunk.device)
        noisy = chunk.masked_fill(bits < -32_768 + half, 0)
        return noisy.masked_fill_(bits >= 32_768 - half, 255)

    return map_chunks(change, frames)


@lru_cache(maxsize=8)
def _poisson_table(photons: int, device: torch.device) -> Tensor:
    """Return the noisy grey level for (clean grey level, uniform of 14 bits), 256 * 2**14 uint8,
    row after row."""
    levels = 2**_POISSON_BITS
    # Twelve standard deviations above the mean: what lies beyond is less likely than one level.
    counts = torch.arange(int(photons + 12 * photons**0.5 + 20), dtype=torch.float64)
    rate = torch.arange(256, dtype=torch.float64)[:, None] * (photons / 255)
    log_mass = torch.xlogy(counts, rate) - rate - torch.lgamma(counts + 1)
    cumulative = log_mass.exp().cumsum(1)

    uniform = (
        ((torch.arange(levels, dtype=torch.float64) + 0.5) / levels)
        .expand(256, levels)
        .contiguous()
    )
    drawn = torch.searchsorted(cumulative.contiguous(), uniform)
    return (drawn.double() / photons).clamp_(0, 1).mul_(255).to(torch.uint8).flatten().to(device)


def shot_noise(frames: Tensor, *, photons: int, generator: Generator) -> Tensor:
    """Replace each value x in [0, 1] by Poisson(photons x) / photons."""
    table = _poisson_table(photons, frames.device)

    def change(chunk: Tensor) -> Tensor:
        bits = (
            random_int16(chunk.shape, generator, chunk.device)
            .int()
            .bitwise_and_(2**_POISSON_BITS - 1)
        )
        index = bits.add_(chunk.int().bitwise_left_shift_(_POISSON_BITS))
        return table.index_select(0, index.flatten()).view(chunk.shape)

    return map_chunks(change, frames)
