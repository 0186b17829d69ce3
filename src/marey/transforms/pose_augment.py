"""Random changes of a window of keypoints that leave its action as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from marey.transforms.keypoints import MIRRORED, NUM_KEYPOINTS


@dataclass(frozen=True, kw_only=True)
class PoseAugment:
    """Mirror image, small turns and stretches of the picture, lost keypoints, scores, noise."""

    mirror: float = 0.5
    """Chance of the mirror image, left and right exchanged by name."""
    turn_degrees: float = 6.0
    """Largest turn of the picture."""
    stretch: float = 0.12
    """Largest change of width over height, as a share."""
    lose_keypoint: float = 0.03
    """Chance that a keypoint of a moment is not seen."""
    lose_part: float = 0.1
    """Chance that one keypoint is not seen in the whole window."""
    lose_others: float = 0.1
    """Chance that nobody but the first person is seen."""
    score_shift: float = 0.08
    """Largest change of all scores."""
    noise_share: float = 0.35
    """Share of windows that are seen as small people are: with noise of their own."""
    noise: float = 0.05
    """Largest standard deviation of that noise per axis, in body heights; half of its variance
    stays from moment to moment."""

    def __call__(self, keypoints: Tensor, generator: torch.Generator) -> Tensor:
        """Return another window (T, P * 17, 3)."""

        def uniform(size: float) -> float:
            return float(torch.rand((), generator=generator)) * 2 * size - size

        out = keypoints.clone()
        if float(torch.rand((), generator=generator)) < self.mirror:
            out = mirror(out)

        angle = math.radians(uniform(self.turn_degrees))
        c, s = math.cos(angle), math.sin(angle)
        matrix = torch.tensor([[c, s], [-s, c]]) * torch.tensor([1.0 + uniform(self.stretch), 1.0])
        out[..., :2] = out[..., :2] @ matrix

        if float(torch.rand((), generator=generator)) < self.noise_share:
            size = self.noise * float(torch.rand((), generator=generator))
            shaken = out[..., :2] + size * wandering(out[..., :2].shape, generator)
            out[..., :2] = torch.where(out[..., 2:] > 0, shaken, out[..., :2])

        seen = out[..., 2] > 0
        score = out[..., 2] + uniform(self.score_shift)
        score = torch.where(seen, score.clamp(0.01, 1.0), torch.zeros(()))
        lost = torch.rand(score.shape, generator=generator) < self.lose_keypoint
        if float(torch.rand((), generator=generator)) < self.lose_part:
            lost[:, int(torch.randint(score.shape[1], (), generator=generator))] = True
        if score.shape[1] > NUM_KEYPOINTS:
            alone = float(torch.rand((), generator=generator)) < self.lose_others
            lost[:, NUM_KEYPOINTS:] |= alone
        out[..., 2] = score.masked_fill(lost, 0.0)
        return out


def wandering(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise (T, ...), correlated by a half from moment to moment."""
    steps = torch.randn(shape, generator=generator)
    out = torch.empty(shape)
    out[0] = steps[0]
    for moment in range(1, shape[0]):
        out[moment] = 0.5 * out[moment - 1] + math.sqrt(0.75) * steps[moment]
    return out


def mirror(keypoints: Tensor) -> Tensor:
    """Return the mirror image of keypoints (..., P * 17, 3), left and right exchanged by name."""
    persons = keypoints.unflatten(-2, (-1, NUM_KEYPOINTS))[..., list(MIRRORED), :]
    return (persons * torch.tensor([-1.0, 1.0, 1.0])).flatten(-3, -2)
