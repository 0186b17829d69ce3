"""Models under test that need no training: one looks at brightness, one at where the light is at
the end."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling


def brightness_of(clips: Tensor) -> Tensor:
    """Class 0 ("dark") below a mean of 0.5, class 1 ("light") above; takes clips in [0, 1]."""
    light = clips.mean((1, 2, 3, 4)) - 0.5
    return torch.stack([-light, light], 1) * 40


class Brightness(nn.Module):
    """The same with gradients."""

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        return {"logits": brightness_of(clips)}


def brightness_network() -> tuple[nn.Module, Preprocess, list[str]]:
    """A module with its own preprocessing and its classes in another order and spelling."""

    class Swapped(nn.Module):
        def forward(self, clips: Tensor) -> dict[str, Tensor]:
            return {"logits": brightness_of(clips).flip(1)}

    preprocess = Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=4),
        short_side=36,
        image_size=32,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    return Swapped(), preprocess, ["Light", "Dark"]


def growing_light() -> tuple[nn.Module, Preprocess]:
    """Class 1 where the clip gets brighter with time: the order decides."""

    class Growing(nn.Module):
        def forward(self, clips: Tensor) -> dict[str, Tensor]:
            levels = clips.mean((2, 3, 4))
            growth = levels[:, -1] - levels[:, 0]
            return {"logits": torch.stack([-growth, growth], 1) * 40}

    preprocess = Preprocess(
        sampling=ClipSampling(kind="uniform", num_frames=4),
        short_side=36,
        image_size=32,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    return Growing(), preprocess
