"""Digital corruptions: JPEG, contrast, brightness, saturation, coarse pixels; no randomness."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate, repeat

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from marey.corruptions.pixels import map_chunks, truncate


def jpeg_compression(frames: Tensor, *, quality: int) -> Tensor:
    """Write and read every frame as a JPEG of `quality` (1 to 100), chroma at half resolution, on
    the CPU."""
    changed = torch.empty(frames.shape, dtype=torch.uint8)
    for target, frame in zip(changed, frames.cpu(), strict=True):
        # (3, H, W) over memory in the order (H, W, 3), as the encoder wants it.
        pixels = torch.stack(tuple(frame), -1).permute(2, 0, 1)
        target.copy_(decode_jpeg(encode_jpeg(pixels, quality=quality), mode=ImageReadMode.RGB))
    return changed.to(frames.device)


def contrast(frames: Tensor, *, factor: float) -> Tensor:
    """Pull every value towards its frame's and channel's mean.  x' = (x - m) factor + m

    Computed per grey level in float64, so it equals the published code exactly.
    """

    def change(chunk: Tensor) -> Tensor:
        n, C, H, W = chunk.shape
        mean = chunk.flatten(2).sum(2, dtype=torch.int64).double() / (255 * H * W)
        levels = torch.arange(256, dtype=torch.float64, device=chunk.device) / 255
        table = (
            ((levels - mean[..., None]) * factor + mean[..., None])
            .clamp_(0, 1)
            .mul_(255)
            .to(torch.uint8)
        )
        # One lookup for all channels: row c of the flattened table begins at 256 c.
        offset = (
            torch.arange(n * C, dtype=torch.int32, device=chunk.device).mul_(256).view(n, C, 1, 1)
        )
        return table.flatten().index_select(0, (chunk.int() + offset).flatten()).view(chunk.shape)

    return map_chunks(change, frames, times=2)


def brightness(frames: Tensor, *, shift: float) -> Tensor:
    """Add `shift` to the V of HSV (V in [0, 1]), hue and saturation kept.

    V is the largest channel, so RGB scales by V' / V; a black pixel becomes grey V'.
    """
    value = torch.arange(256, dtype=torch.float64, device=frames.device)
    brighter = (value / 255 + shift).clamp_(max=1) * 255
    scale = (brighter / value.clamp(min=1)).float()
    scale[0] = 0  # black has no hue to scale
    black = brighter[0].item()

    def change(chunk: Tensor) -> Tensor:
        largest = chunk.amax(1, keepdim=True)
        changed = chunk * scale.index_select(0, largest.flatten().int()).view(largest.shape)
        return truncate(changed.add_(1e-3).masked_fill_(largest == 0, black))

    return map_chunks(change, frames)


def saturate(frames: Tensor, *, factor: float, shift: float) -> Tensor:
    """Change the S of HSV to clip(S factor + shift, 0, 1), hue and value kept.

    RGB moves away from V by S' / S; a grey pixel has hue 0, so with a positive shift it turns red,
    as published.
    """

    def change(chunk: Tensor) -> Tensor:
        pixels = chunk.float()
        value = pixels.amax(1, keepdim=True)
        spread = value - pixels.amin(1, keepdim=True)
        saturation = spread / value.clamp(min=1)
        ratio = (saturation * factor + shift).clamp_(0, 1).div_(saturation.clamp(min=1e-9))
        changed = torch.addcmul(value, value - pixels, ratio, value=-1)
        if shift > 0:
            # Hue 0 is red: R keeps its value, G and B lose the new saturation.
            grey = value * (1 - shift) * (spread == 0)
            changed[:, 1:] = torch.where(spread == 0, grey, changed[:, 1:])
        return truncate(changed.add_(1e-3))

    return map_chunks(change, frames)


@lru_cache(maxsize=32)
def _box_taps(size: int, small: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return Pillow's box filter from `size` to `small`: source rows (taps, small), which of them
    count (taps, small), and the nearest small row of each of the `size` rows on the way back."""
    scale = size / small
    centre = (torch.arange(small, dtype=torch.float64) + 0.5) * scale
    first = (centre - scale * 0.5 + 0.5).int().clamp(min=0)
    last = (centre + scale * 0.5 + 0.5).int().clamp(max=size)

    taps = first + torch.arange(int((last - first).max()))[:, None]
    position = (taps - centre + 0.5) * (1 / scale)
    counts = (taps < last) & (position > -0.5) & (position <= 0.5)
    steps = accumulate(
        repeat(small / size, size - 1), initial=small / size * 0.5
    )  # summed up, as Pillow does
    return taps.clamp(max=size - 1), counts, torch.tensor([int(step) for step in steps])


def _shrink(values: Tensor, small: int, dim: int) -> Tensor:
    """Average runs of an axis of values (H, W, M) down to `small`, rounded half up, uint8."""
    taps, counts, _ = (part.to(values.device) for part in _box_taps(values.shape[dim], small))
    shape = [1, 1, 1]
    shape[dim] = -1
    total = values.index_select(dim, taps[0]).to(torch.int16)
    total *= counts[0].view(shape)
    for tap, inside in zip(taps[1:], counts[1:], strict=True):
        part = values.index_select(dim, tap)
        total += part if bool(inside.all()) else part * inside.view(shape)
    return total.float().mul_((1 / counts.sum(0)).view(shape)).add_(0.5).to(torch.uint8)


def pixelate(frames: Tensor, *, scale: float) -> Tensor:
    """Shrink to `scale` by a box filter and enlarge back by the nearest pixel, as Pillow does
    (columns, then rows).

    Channels of all frames lie beside each other in memory, so that a column is copied whole.
    """
    H, W = frames.shape[-2:]
    h, w = max(1, int(H * scale)), max(1, int(W * scale))
    up_rows = _box_taps(H, h)[2].to(frames.device)
    up_columns = _box_taps(W, w)[2].to(frames.device)

    def change(chunk: Tensor) -> Tensor:
        values = chunk.flatten(0, 1).permute(1, 2, 0).contiguous()  # (H, W, n C)
        small = _shrink(_shrink(values, w, 1), h, 0)
        wide = small.index_select(1, up_columns).permute(2, 0, 1).contiguous()  # (n C, h, W)
        return wide.index_select(1, up_rows).view(chunk.shape)

    return map_chunks(change, frames, times=16)
