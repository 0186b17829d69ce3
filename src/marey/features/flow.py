"""Optical flow between neighbouring frames: how far each pixel has moved.

Lucas and Kanade, "An iterative image registration technique", IJCAI 1981, on a pyramid as in
Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", 2001, for every pixel.

Legend: N pairs of frames, S pixels per side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 3
WINDOW = 9
"""Pixels per side of the square in which all pixels are taken to move alike."""
DAMPING = 4.0
"""Added to the diagonal of the structure tensor, in squared grey levels: where there is no texture,
no motion is claimed."""
MAX_STEP = 3.0
"""Pixels that one level may add."""


def optical_flow(before: Tensor, after: Tensor) -> Tensor:
    """Estimate the motion of every pixel of `before`.

    Each level solves G v = -b with G the sums over a window of products of the gradients of
    `after`, moved back by the flow so far, and b those of gradients and temporal difference. We add
    `DAMPING` to the diagonal of G.

    Args:
        before, after: float (N, 1, S, S), grey levels in [0, 255]; S is divisible by 4.

    Returns:
        (N, 2, S, S): x to the right and y downwards, in pixels.
    """
    pyramid = [(before, after)]
    for _ in range(LEVELS - 1):
        earlier, later = pyramid[-1]
        pyramid.append((F.avg_pool2d(box_mean(earlier, 3), 2), F.avg_pool2d(box_mean(later, 3), 2)))
    size = pyramid[-1][0].shape[-1]
    flow = torch.zeros(len(before), 2, size, size)
    for earlier, later in reversed(pyramid):
        size = earlier.shape[-1]
        if flow.shape[-1] != size:
            flow = 2 * F.interpolate(flow, size=size, mode="bilinear", align_corners=False)
        flow = flow + _step(earlier, _moved(later, flow))
    return flow


def box_mean(values: Tensor, side: int) -> Tensor:
    """Return the mean over a square around every pixel; the border is repeated."""
    padded = F.pad(values, (side // 2,) * 4, mode="replicate")
    return F.avg_pool2d(padded, side, stride=1)


def _moved(frames: Tensor, flow: Tensor) -> Tensor:
    """Look frames (N, 1, S, S) up where the flow points."""
    size = frames.shape[-1]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    at = torch.stack((columns, rows)) + flow  # (N, 2, S, S)
    grid = (2 * (at + 0.5) / size - 1).permute(0, 2, 3, 1)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _step(before: Tensor, after: Tensor) -> Tensor:
    """Solve for the motion that is left, (N, 2, S, S)."""
    dx = F.pad((after[..., 2:] - after[..., :-2]) / 2, (1, 1))
    dy = F.pad((after[..., 2:, :] - after[..., :-2, :]) / 2, (0, 0, 1, 1))
    dt = after - before
    products = torch.cat((dx * dx, dx * dy, dy * dy, dx * dt, dy * dt), dim=1)
    xx, xy, yy, xt, yt = box_mean(products, WINDOW).split(1, dim=1)
    xx, yy = xx + DAMPING, yy + DAMPING
    determinant = xx * yy - xy * xy
    step = torch.cat((xy * yt - yy * xt, xy * xt - xx * yt), dim=1) / determinant
    return step.clamp(-MAX_STEP, MAX_STEP)
