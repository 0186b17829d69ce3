"""The motion-excited attack: a black-box attack whose noise moves with the video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.two_point import two_point_ascent
from marey.attacks.worst_case import AttackResult
from marey.features.flow import optical_flow

FLOW_SIDE = 64
"""Pixels per side of the grey frames in which motion is estimated."""


def motion_grids(clip: Tensor) -> Tensor:
    """Return where each pixel of each frame was in the first frame, in [-1, 1]: (B, T, H, W, 2).

    Optical flow between neighbouring frames, added up along time.

    Args:
        clip: uint8, (B, T, 3, H, W).
    """
    B, T, _, H, W = clip.shape
    grey = clip.float().mean(2).flatten(0, 1)[:, None]
    small = F.interpolate(grey, size=(FLOW_SIDE, FLOW_SIDE), mode="area").unflatten(0, (B, T))
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    still = torch.stack((x, y), dim=-1).to(clip.device)

    total = torch.zeros(B, 2, FLOW_SIDE, FLOW_SIDE, device=clip.device)
    grids = [still.expand(B, H, W, 2)]
    for t in range(1, T):
        # From this frame back to the one before.
        total = total + optical_flow(small[:, t], small[:, t - 1]).to(clip.device)
        shift = F.interpolate(total, size=(H, W), mode="bilinear", align_corners=True)
        grids.append(still + shift.permute(0, 2, 3, 1) * 2 / (FLOW_SIDE - 1))
    return torch.stack(grids, dim=1)


def motion_excited(
    model: PixelModel,
    clip: Tensor,
    labels: Tensor,
    *,
    eps: float = 10 / 255,
    step: float = 0.025,
    probe: float = 0.1,
    exploration: float = 0.1,
    rate: float = 0.1,
    max_queries: int = 600,
    targets: Tensor | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    """Estimate the gradient along one noise frame that is carried along by the clip's own motion.

    Zhang et al., "Motion-Excited Sampler: Video Adversarial Attack with Sparked Prior", ECCV 2020.
    The paper takes motion vectors or TV-L1 flow; ours is Lucas-Kanade flow, and the loop and its
    constants are those of Geo-TRAP (`two_point_ascent`), whose authors compare both in it.

    Args:
        model, clip, labels, targets: as in `marey.attacks.attack`; only answers are used.
        eps, step, probe, exploration, rate, max_queries: as in `geo_trap`.
        generator: randomness; a fresh one with seed 0 when absent.
    """
    generator = generator or Generator(device=clip.device).manual_seed(0)
    B, T, C, H, W = clip.shape
    grids = motion_grids(clip).flatten(0, 1)

    def carried_noise() -> Tensor:
        noise = torch.randn(B, C, H, W, generator=generator, device=clip.device)
        frames = noise[:, None].expand(B, T, C, H, W).flatten(0, 1)
        carried = F.grid_sample(frames, grids, padding_mode="border", align_corners=True)
        return carried.view(B, T, C, H, W)

    return two_point_ascent(
        model,
        clip,
        labels,
        carried_noise,
        eps=eps,
        step=step,
        probe=probe,
        exploration=exploration,
        rate=rate,
        max_queries=max_queries,
        targets=targets,
    )
