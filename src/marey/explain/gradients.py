"""Relevance of patches by gradients (captum), for models with or without attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import import_extra, unknown_name

METHODS = ("integrated_gradients", "saliency")


class _Logits(nn.Module):
    """A model that returns only its logits, as captum needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        return self.model(clip)["logits"]


def gradient_relevance(
    model: nn.Module,
    clip: Tensor,
    target: int,
    *,
    method: str = "integrated_gradients",
    patch: int = 16,
    steps: int = 16,
) -> Tensor:
    """Return the relevance of each patch for one class.

    Args:
        clip: float, (T, 3, S, S), as the model takes it.
        target: class number.
        method: "integrated_gradients" (Sundararajan et al., 2017, from a clip of zeros) or
            "saliency".
        patch: pixels per side of a patch of the map.
        steps: points of the path of integrated gradients.

    Returns:
        (T, S / patch, S / patch), not negative: the mean size of the attribution in each patch.

    Raises:
        UserError: if the method is unknown or the extra "explain" is not installed.
    """
    if method not in METHODS:
        raise unknown_name("relevance method", method, METHODS)
    captum = import_extra("captum.attr", "explain", "gradient relevance")
    wrapped = _Logits(model)
    with torch.enable_grad():
        if method == "saliency":
            attribution = captum.Saliency(wrapped).attribute(
                clip[None].clone().requires_grad_(), target=target
            )
        else:
            integrated = captum.IntegratedGradients(wrapped)
            attribution = integrated.attribute(
                clip[None].clone(), target=target, n_steps=steps, internal_batch_size=1
            )
    return F.avg_pool2d(attribution[0].detach().abs().mean(1), patch)
