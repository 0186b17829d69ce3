"""Weather corruptions: fog of a random cloud map, and rain."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.corruptions.pixels import chunks, truncate, uniform_int


def plasma(
    count: int, size: int, decay: float, generator: Generator, device: torch.device
) -> Tensor:
    """Draw `count` cloud maps by diamond-square, (count, size, size) float32 in [0, 1]; size is a
    power of two.

    Hendrycks and Dietterich's code: roughness 100, divided by `decay` at each halving of the step.
    """
    heights = torch.zeros(count, size, size, device=device)
    step, rough = size, 100.0

    def mean_plus_noise(total: Tensor) -> Tensor:
        noise = torch.rand(total.shape, generator=generator, device=generator.device).to(device)
        return noise.mul_(2).sub_(1).mul_(rough * rough).add_(total, alpha=0.25)

    # The map is a torus: rolling by one fetches the neighbour beyond the border.
    while step >= 2:
        half = step // 2

        # Square step: the centre of each square is the mean of its four corners, plus noise.
        corners = heights[:, ::step, ::step]
        sides = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = mean_plus_noise(sides + sides.roll(-1, 2))

        # Diamond step: the middle of each side is the mean of two corners and two centres, plus
        # noise.
        middles, corners = heights[:, half::step, half::step], heights[:, ::step, ::step]
        heights[:, ::step, half::step] = mean_plus_noise(
            middles + middles.roll(1, 1) + corners + corners.roll(-1, 2)
        )
        heights[:, half::step, ::step] = mean_plus_noise(
            middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        )
        step, rough = half, rough / decay

    heights -= heights.amin((1, 2), keepdim=True)
    return heights.div_(heights.amax((1, 2), keepdim=True))


def fog(
    frames: Tensor, *, amount: float, decay: float, per_clip: bool, generator: Generator
) -> Tensor:
    """Mix in a cloud map: x' = (x + a p) m / (m + a), m the brightest value of the frame.

    `per_clip` keeps one map for the whole clip (Yi et al.); otherwise every frame has its own
    (ImageNet-C).
    """
    H, W = frames.shape[-2:]
    size = 2 ** math.ceil(math.log2(max(H, W)))
    single = (
        plasma(1, size, decay, generator, frames.device)[:, None, :H, :W].mul_(255 * amount)
        if per_clip
        else None
    )

    changed = []
    for group in frames.split(16):  # bounds the memory of the cloud maps
        clouds = single
        if clouds is None:
            clouds = plasma(len(group), size, decay, generator, frames.device)[
                :, None, :H, :W
            ].mul_(255 * amount)
        for chunk, cloud in zip(
            chunks(group), chunks(clouds.expand(len(group), 3, H, W)), strict=True
        ):
            brightest = chunk.amax((1, 2, 3), keepdim=True).float() / 255
            changed.append(truncate((chunk + cloud).mul_(brightest / (brightest + amount))))
    return torch.cat(changed)


def _drop_mask(
    H: int, W: int, drops: int, length: int, generator: Generator, device: torch.device
) -> Tensor:
    """Draw `drops` lines, one pixel wide, one pixel left over their length, (H, W) float32, grey
    220 where wet."""
    # The slant only limits where drops begin; see `rain`.
    slant = uniform_int(-10, 9, 1, generator)[0]
    low, high = (slant, W - 1) if slant < 0 else (0, max(0, W - slant - 1))
    span = dict(generator=generator, device=generator.device)
    x = torch.randint(low, high + 1, (drops, 1), **span).to(device)
    y = torch.randint(0, max(1, H - length), (drops, 1), **span).to(device)

    along = torch.arange(length + 1, device=device)
    rows, columns = y + along, x - (2 * along >= length).long()
    inside = (rows < H) & (columns >= 0) & (columns < W)
    mask = torch.zeros(H, W, device=device)
    mask[rows[inside], columns[inside]] = 220.0
    return mask


def rain(
    frames: Tensor, *, area_per_drop: int, length: int, darken: float, generator: Generator
) -> Tensor:
    """Draw rain on every frame and lower the contrast around each channel's mean by `darken`.

    Yi et al.: drops of grey 220 added where the frame is dark, blurred 3 x 3, shown only along the
    drops. Each frame has its own drops; the lines lean by one pixel whatever slant was drawn, as in
    the released code.
    """
    H, W = frames.shape[-2:]
    length = max(2, min(round(length * min(H, W) / 224), H - 1))
    drops = round(H * W / (area_per_drop * (min(H, W) / 224) ** 2))

    changed = []
    for frame in frames:
        mask = _drop_mask(H, W, drops, length, generator, frames.device)
        image = frame.float()
        # Bright pixels and bright frames show less of a drop. The sums stay below 256: nothing
        # wraps around.
        wet = mask * (1 - image / 255) * (1 - image.mean() / 255)
        raining = image + wet.trunc_()
        blurred = F.avg_pool2d(F.pad(raining[None], [1] * 4, mode="reflect"), 3, stride=1)[
            0
        ].round_()

        share = mask / 255
        mixed = blurred * share + image * (1 - share)
        mean = mixed.mean((1, 2), keepdim=True)
        changed.append(truncate((mixed - mean) * darken + mean))
    return torch.stack(changed)
