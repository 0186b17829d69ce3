"""The adversarial perturbation of GAT, for frame features and for clips.

Source: Sahu et al., section 3.2, Eq. 3, after Goodfellow et al., "Explaining and harnessing
adversarial examples".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from marey.errors import UserError

Norm = Literal["frame", "clip"]


def perturbation_from_gradient(gradient: Tensor, eps: float, norm: Norm = "frame") -> Tensor:
    r"""Scale a gradient to the length of the perturbation.

    Eq. 3:  R = eps * G / ||G||_2.  "The norm is taken across rows of the input tensor": one norm
    per frame. Rows are divided by their largest value first, so that tiny gradients do not
    underflow; a row without gradient (padding) gives exactly 0, not 0/0.

    Args:
        gradient: float (B, T, ...), the loss's gradient with respect to the input.
        eps: length of R, in the units of the input.
        norm: "frame", every frame is moved by eps (the paper); "clip", the whole video is.

    Returns:
        A tensor like `gradient`, without a graph: R is a constant of the step.
    """
    if norm not in ("frame", "clip"):
        raise UserError(f"norm must be 'frame' or 'clip', got '{norm}'")
    rows = gradient.detach().flatten(2 if norm == "frame" and gradient.dim() > 2 else 1).float()
    # Eq. 3, in two divisions: by the largest value, then by the norm of the result.
    peak = rows.abs().amax(-1, keepdim=True)
    direction = rows / torch.where(peak > 0, peak, torch.ones_like(peak))
    length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
    scaled = eps * direction / length.clamp(min=1.0)  # length is 1 or more, or 0 for a row of zeros
    return scaled.to(gradient.dtype).view_as(gradient)


def adversarial_perturbation(
    loss: Tensor,
    inputs: Sequence[Tensor],
    eps: float,
    norm: Norm = "frame",
    *,
    retain_graph: bool = True,
) -> list[Tensor]:
    """Return R for every input (modality) of a loss, by one backward pass without parameter
    gradients.

    Args:
        loss: scalar.
        inputs: tensors (B, T, ...) with `requires_grad` that the loss was computed from.
        eps, norm: see `perturbation_from_gradient`.
        retain_graph: keep the graph, to train on the same loss afterwards.

    Raises:
        UserError: if the loss does not depend on an input.
    """
    try:
        gradients = torch.autograd.grad(loss, list(inputs), retain_graph=retain_graph)
    except RuntimeError as error:
        if "not have been used" not in str(error) and "does not require grad" not in str(error):
            raise
        raise UserError(
            "the loss does not depend on every input that adversarial training should perturb; "
            "give it the inputs that the model reads"
        ) from error
    return [perturbation_from_gradient(gradient, eps, norm) for gradient in gradients]
