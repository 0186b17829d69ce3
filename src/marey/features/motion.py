"""A video's motion as one vector: statistics over time of optical flow and of changing pixels.

It needs no people and no names of things: how fast and how unevenly pixels move, after the motion
of the camera is taken off, how suddenly that changes, and how it is spread over the picture. Cells
of the picture are sorted, so where something happens cannot be read from the vector; nor can the
picture's size or the video's length and rate.

Legend: F frames, S pixels per side, C quantities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.features.flow import box_mean, optical_flow

MOTION_FPS = 12.5
"""Frames a second that are looked at."""
SECONDS = 5.0
"""Length of the window in the middle of a video that is described; a shorter video is taken
whole."""
SIDE = 64
"""Pixels per side of the small grey frames in which motion is measured."""
CELLS = 6
"""Per side, of the grid over a frame."""
DIRECTIONS = 8
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Quantiles over the pixels of a frame."""
TIME_SHARES = (0.1, 0.5, 0.9)
"""Quantiles over time."""
CHANGED = (0.1, 0.2, 0.4, 0.8)
"""Limits above which a pixel counts as changed, in standard deviations of the grey levels."""
MIN_CONTRAST = 5.0
"""Grey levels added to that standard deviation."""
RHYTHMS = 8
"""Bands of frequencies of the change over time, up to half the frame rate."""
SPECTRUM_FRAMES = 64
LOG_FLOOR = 1e-2


def small_grey(frames: Tensor) -> Tensor:
    """Return uint8 (F, 3, H, W) as float grey frames (F, 1, S, S), stretched to one size."""
    reduced = F.interpolate(frames.float(), size=(SIDE, SIDE), mode="area")
    return box_mean(reduced.mean(1, keepdim=True), 3)


def motion_vector(grey: Tensor, seconds: Sequence[float] | None = None) -> Tensor:
    """Describe the motion in small frames, float32 (`MOTION_DIM`,).

    Args:
        grey: (F, 1, S, S) of `small_grey`; fewer than four frames are repeated.
        seconds: rising times of the frames; None: `MOTION_FPS` a second.
    """
    times = torch.arange(len(grey)) / MOTION_FPS if seconds is None else torch.tensor(seconds)
    if len(grey) < 4:
        missing = 4 - len(grey)
        grey = torch.cat((grey, grey[-1:].expand(missing, -1, -1, -1)))
        times = torch.cat((times, times[-1] + torch.arange(1, missing + 1) / MOTION_FPS))
    steps = (times[1:] - times[:-1]).float().clamp(min=1e-3)
    change = (grey[1:] - grey[:-1]).abs()[:, 0] / (grey.std() + MIN_CONTRAST)
    changed = torch.stack([(change > limit).float().mean((1, 2)) for limit in CHANGED], dim=1)
    positive = torch.cat(
        (*_flow_quantities(grey, steps), _over_time(_sorted_cells(change)), _over_time(changed))
    )
    return torch.cat((positive, (positive.clamp(min=0) + LOG_FLOOR).log(), _rhythm(change)))


def _flow_quantities(grey: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return statistics of velocity, in sides of the picture per second, and of its change from
    one frame to the next."""
    flow = optical_flow(grey[:-1], grey[1:]) / (SIDE * steps[:, None, None, None])
    camera = flow.flatten(2).median(2).values  # (F - 1, 2)
    flow = flow - camera[:, :, None, None]
    speed = flow.norm(dim=1)  # (F - 1, S, S)
    jerks = F.pad((camera[1:] - camera[:-1]).norm(dim=1), (0, 1))
    velocity = torch.cat(
        (
            _quantiles(speed),
            _sorted_cells(speed),
            _largest_of_cells(speed),
            _directions(flow, speed),
            _swirl(flow),
            camera.norm(dim=1, keepdim=True),
            jerks[:, None],
            _spread(speed),
        ),
        dim=1,
    )
    acceleration = (flow[1:] - flow[:-1]).norm(dim=1)
    changes = torch.cat((_quantiles(acceleration), _sorted_cells(acceleration)), dim=1)
    return _over_time(velocity), _over_time(changes)


def _quantiles(values: Tensor) -> Tensor:
    """Return `SHARES` of the pixels of (F, S, S), (F, 6)."""
    return values.flatten(1).quantile(torch.tensor(SHARES), dim=1).T


def _sorted_cells(values: Tensor) -> Tensor:
    """Return the means of the cells of (F, S, S), smallest first, (F, CELLS ** 2)."""
    return F.adaptive_avg_pool2d(values[:, None], CELLS).flatten(1).sort(1).values


def _largest_of_cells(values: Tensor) -> Tensor:
    """Return every third of the sorted largest values of cells."""
    return F.max_pool2d(values[:, None], SIDE // CELLS).flatten(1).sort(1).values[:, ::3]


def _directions(flow: Tensor, speed: Tensor) -> Tensor:
    """Return how evenly motion points everywhere, how much of it is level, and how one-sided the
    level part is, (F, 3)."""
    angle = torch.atan2(flow[:, 1], flow[:, 0]) / (2 * torch.pi) * DIRECTIONS
    sector = angle.floor() % DIRECTIONS
    amount = torch.stack([((sector == k) * speed).sum((1, 2)) for k in range(DIRECTIONS)], dim=1)
    share = amount / (amount.sum(1, keepdim=True) + 1e-6)
    entropy = -(share * (share + 1e-6).log()).sum(1)
    right, left = share[:, [7, 0]].sum(1), share[:, [3, 4]].sum(1)
    return torch.stack((entropy, right + left, (right - left).abs()), dim=1)


def _swirl(flow: Tensor) -> Tensor:
    """Return the mean absolute divergence and rotation of flow (F, 2, S, S), (F, 2)."""
    across = flow[..., :-1, 1:] - flow[..., :-1, :-1]
    down = flow[..., 1:, :-1] - flow[..., :-1, :-1]
    divergence = (across[:, 0] + down[:, 1]).abs().mean((1, 2))
    rotation = (across[:, 1] - down[:, 0]).abs().mean((1, 2))
    return torch.stack((divergence, rotation), dim=1)


def _spread(speed: Tensor) -> Tensor:
    """Return the standard deviation across and down of where motion is, (F, 2)."""
    weight = speed / (speed.sum((1, 2), keepdim=True) + 1e-6)
    place = torch.linspace(0, 1, SIDE)
    deviations = []
    for marginal in (weight.sum(1), weight.sum(2)):  # (F, S), across and down
        middle = (marginal * place).sum(1, keepdim=True)
        deviations.append((marginal * (place - middle) ** 2).sum(1).sqrt())
    return torch.stack(deviations, dim=1)


def _over_time(quantities: Tensor) -> Tensor:
    """Return mean, standard deviation, largest, quantiles and mean change of (F, C), (7 C,)."""
    return torch.cat(
        (
            quantities.mean(0),
            quantities.std(0, correction=0),
            quantities.max(0).values,
            quantities.quantile(torch.tensor(TIME_SHARES), dim=0).flatten(),
            (quantities[1:] - quantities[:-1]).abs().mean(0),
        )
    )


def _rhythm(change: Tensor) -> Tensor:
    """Return the logarithm of the amplitudes of a frame's mean change in bands of frequencies."""
    series = change.mean((1, 2))[:SPECTRUM_FRAMES]
    padded = F.pad(series - series.mean(), (0, SPECTRUM_FRAMES - len(series)))
    return torch.log1p(F.adaptive_avg_pool1d(torch.fft.rfft(padded).abs()[None], RHYTHMS)[0])


MOTION_DIM = len(motion_vector(torch.zeros(4, 1, SIDE, SIDE)))
"""C of the whole vector."""
