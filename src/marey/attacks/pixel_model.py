"""A model of pixels: it normalises its input itself, so budgets and gradients are in pixel
units."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marey.transforms.preprocess import Preprocess


class PixelModel(nn.Module):
    """Map clips in [0, 1], RGB, (B, T, 3, H, W), to logits (B, K), counting the clips it is asked
    about.

    The gradient flows through rescaling, mean, standard deviation and channel order: a pixel budget
    on normalised input would be another budget for each channel.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Preprocess | None = None,
        *,
        mean: Sequence[float] = (0.45, 0.45, 0.45),
        std: Sequence[float] = (0.225, 0.225, 0.225),
        rescale: float = 1 / 255,
        channel_order: str = "rgb",
    ) -> None:
        """Wrap a model that returns logits or a dict with "logits".

        Args:
            model: in evaluation mode; its weights are not touched.
            preprocess: gives mean, std, rescale and channel order.
            mean, std, rescale, channel_order: used when there is no `preprocess`.
        """
        super().__init__()
        if preprocess is not None:
            mean, std = preprocess.mean, preprocess.std
            rescale, channel_order = preprocess.rescale, preprocess.channel_order
        self.model = model.eval()
        self.flipped = channel_order == "bgr"
        self.scale = 255 * rescale
        self.register_buffer("mean", torch.tensor(mean).view(1, 1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 1, 3, 1, 1), persistent=False)
        self.queries = 0
        self.logit_factor = 1.0
        self.eval()

    def forward(self, clip: Tensor) -> Tensor:
        """Return logits (B, K) of clips in [0, 1]."""
        self.queries += len(clip)
        pixels = clip.flip(2) if self.flipped else clip
        outputs = self.model((pixels * self.scale - self.mean) / self.std)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        return logits if self.logit_factor == 1 else logits * self.logit_factor

    def with_logits_times(self, factor: float) -> PixelModel:
        """Return the same model, weights shared, with its logits multiplied by `factor`: the same
        decisions."""
        scaled = copy.copy(self)
        scaled.logit_factor = self.logit_factor * factor
        scaled.queries = 0
        return scaled
