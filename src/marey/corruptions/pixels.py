"""Parts shared by the corruptions of pixels: truncation to uint8, cache-sized chunks, random bits.

The published code computes in floats, clips, multiplies by 255 and truncates (`np.uint8`), so we
truncate too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

_CHUNK_VALUES = 200_000
"""Pixel values worked on at a time on a CPU: one 224 x 224 RGB frame in float32 stays in the
second-level cache."""


def truncate(values: Tensor) -> Tensor:
    """Clip float values to [0, 255] in place and drop the fraction, as the published code does."""
    return (
        values.clamp_(0, 255).to(torch.int32).to(torch.uint8)
    )  # in two steps, each of which is vectorised


def chunks(frames: Tensor, times: int = 1) -> Iterator[Tensor]:
    """Yield runs of frames (n, C, H, W): cache-sized (or `times` as large) on a CPU, whole on an
    accelerator."""
    if frames.device.type != "cpu":
        yield frames
        return
    yield from frames.split(max(1, times * _CHUNK_VALUES // max(1, frames[0].numel())))


def map_chunks(change: Callable[[Tensor], Tensor], frames: Tensor, times: int = 1) -> Tensor:
    """Apply `change`, (n, C, H, W) uint8 -> same, chunk by chunk into one new tensor."""
    changed = torch.empty_like(frames, memory_format=torch.contiguous_format)
    start = 0
    for chunk in chunks(frames, times):
        changed[start : start + chunk.shape[0]] = change(chunk)
        start += chunk.shape[0]
    return changed


def random_int16(
    shape: torch.Size | tuple[int, ...], generator: Generator, device: torch.device
) -> Tensor:
    """Draw int16 values, every one of the 65,536 equally likely; four per 64-bit draw, which is
    what makes it fast."""
    count = torch.Size(shape).numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=generator.device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    return words.view(torch.int16)[:count].view(shape).to(device)


def uniform_int(low: int, high: int, count: int, generator: Generator) -> list[int]:
    """Draw `count` integers from [low, high], both ends included."""
    return torch.randint(
        low, high + 1, (count,), generator=generator, device=generator.device
    ).tolist()


def side_scale(frames: Tensor) -> float:
    """Return short side / 224: the tables hold for 224 x 224, other sizes scale radii and shifts by
    this."""
    return min(frames.shape[-2:]) / 224
