"""Geo-TRAP: a black-box attack that moves one noise frame by random geometric transforms from frame
to frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.two_point import two_point_ascent
from marey.attacks.worst_case import AttackResult
from marey.errors import unknown_name

FREEDOM = {
    "translation": 2,
    "dilation": 1,
    "rigid": 3,
    "translation_dilation": 3,
    "similarity": 4,
    "affine": 6,
    "projective": 8,
}
"""Transform -> degrees of freedom, each drawn from N(0, 1)."""


def transform_matrices(parameters: Tensor, transform: str) -> Tensor:
    """Return 3 x 3 matrices, (..., 3, 3), of parameters (..., freedom), in coordinates [-1, 1], as
    released."""
    p = parameters.unbind(-1)
    one, zero = torch.ones_like(p[0]), torch.zeros_like(p[0])
    cos, sin = p[0].cos(), p[0].sin()
    a = p[1] if len(p) > 1 else one
    rows = {
        "translation": lambda: (one, zero, p[0], zero, one, p[1], zero, zero, one),
        "dilation": lambda: (p[0], zero, zero, zero, p[0], zero, zero, zero, one),
        "rigid": lambda: (cos, -sin, p[1], sin, cos, p[2], zero, zero, one),
        "translation_dilation": lambda: (p[0], zero, p[1], zero, p[0], p[2], zero, zero, one),
        "similarity": lambda: (cos * a, -sin * a, p[2], sin * a, cos * a, p[3], zero, zero, one),
        "affine": lambda: (p[0], p[1], p[2], p[3], p[4], p[5], zero, zero, one),
        "projective": lambda: (*p[:8], one),
    }
    if transform not in rows:
        raise unknown_name("transform", transform, FREEDOM)
    return torch.stack(rows[transform](), dim=-1).unflatten(-1, (3, 3))


def warp(frame: Tensor, matrices: Tensor) -> Tensor:
    """Look at one frame through each matrix: (B, C, H, W), (B, T, 3, 3) -> (B, T, C, H, W), zero
    outside."""
    B, C, H, W = frame.shape
    T = matrices.shape[1]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, H, device=frame.device),
        torch.linspace(-1, 1, W, device=frame.device),
        indexing="ij",
    )
    points = (
        torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, 1, -1, 3) @ matrices.mT
    )  # (B, T, H W, 3)
    depth = points[..., 2:]
    grid = points[..., :2] / torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    frames = frame[:, None].expand(-1, T, -1, -1, -1).reshape(B * T, C, H, W)
    return F.grid_sample(frames, grid.view(B * T, H, W, 2), align_corners=True).view(B, T, C, H, W)


def geo_trap(
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
    transform: str = "translation_dilation",
    targets: Tensor | None = None,
    generator: Generator | None = None,
) -> AttackResult:
    r"""Estimate the gradient from three answers a step, along noise that moves like a camera.

    Li et al., "Adversarial Attacks on Black Box Video Classifiers: Leveraging the Power of
    Geometric Transformations", NeurIPS 2021; constants of the released code:

        r_t = warp(noise, phi_t),  w_{1,2} = g +- exploration r
        g += rate (l(X + probe w_1 / |w_1|) - l(X + probe w_2 / |w_2|)) / (exploration probe) r
        X -= step sign(g), projected on +- eps

    |.| is the L2 norm of a frame. The loss is that of `flickering`, cross-entropy for a target.

    Args:
        model, clip, labels, targets: as in `marey.attacks.attack`; only answers are used, no
            gradients.
        eps: largest change of a value, in [0, 1].
        step, probe, exploration, rate: see the equations.
        max_queries: answers per clip, the clean clip and the last check among them (the paper's
            cap is 60,000, for a target 200,000).
        transform: a key of `FREEDOM`.
        generator: randomness; a fresh one with seed 0 when absent.
    """
    if transform not in FREEDOM:
        raise unknown_name("transform", transform, FREEDOM)
    generator = generator or Generator(device=clip.device).manual_seed(0)
    B, T, C, H, W = clip.shape

    def moving_noise() -> Tensor:
        noise = torch.randn(B, C, H, W, generator=generator, device=clip.device)
        parameters = torch.randn(B, T, FREEDOM[transform], generator=generator, device=clip.device)
        return warp(noise, transform_matrices(parameters, transform))

    return two_point_ascent(
        model,
        clip,
        labels,
        moving_noise,
        eps=eps,
        step=step,
        probe=probe,
        exploration=exploration,
        rate=rate,
        max_queries=max_queries,
        targets=targets,
    )
