"""The perturbations of adversarial training: GAT's along the gradient, and the L-infinity box.

Sources: Sahu et al., section 3.2, Eq. 3, after Goodfellow et al., "Explaining and harnessing
adversarial examples"; Madry et al., "Towards deep learning models resistant to adversarial
attacks", ICLR 2018, Eq. 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    relative: bool = False,
    retain_graph: bool = True,
) -> list[Tensor]:
    """Return R for every input (modality) of a loss, by one backward pass without parameter
    gradients.

    Args:
        loss: scalar.
        inputs: tensors (B, T, ...) with `requires_grad` that the loss was computed from.
        eps, norm: see `perturbation_from_gradient`.
        relative: eps is a share of `frame_norms` of each input, so that one eps means the same for
            features of any scale.
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
    perturbations = [perturbation_from_gradient(gradient, eps, norm) for gradient in gradients]
    if not relative:
        return perturbations
    return [
        perturbation * frame_norms(values.detach(), gradient, norm)
        for perturbation, values, gradient in zip(perturbations, inputs, gradients, strict=True)
    ]


def frame_norms(values: Tensor, gradient: Tensor, norm: Norm = "frame") -> Tensor:
    """Return the mean L2 norm of the frames of each video, or with norm="clip" that of the clip.

    Frames without gradient are padding and do not count.

    Args:
        values, gradient: float (B, T, ...), an input and the loss's gradient with respect to it.

    Returns:
        (B, 1, ...), which broadcasts with `values`.
    """
    start = 2 if norm == "frame" and values.dim() > 2 else 1
    rows = torch.linalg.vector_norm(values.flatten(start).float(), dim=-1)  # (B, T) or (B,)
    real = gradient.detach().flatten(start).ne(0).any(-1)
    if rows.dim() > 1:
        rows = (rows * real).sum(1) / real.sum(1).clamp(min=1)
    return rows.to(values.dtype).view(-1, *[1] * (values.dim() - 1))


def linf_perturbation(
    loss_of: Callable[[Tensor], Tensor],
    clip: Tensor,
    eps: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    steps: int,
) -> Tensor:
    r"""Climb the loss inside a box around a clip, from a random point of it.

    Eq. 2 of Madry et al.:  X_k+1 = Proj_eps(X_k + a sign(grad)),  a = 2.5 eps / steps

    Args:
        loss_of: normalised clip -> scalar.
        clip: float (B, T, 3, S, S), normalised.
        eps: half the width of the box, in units of the clip, broadcast against it.
        low, high: what pixels of 0 and 255 become, broadcast alike.
        steps: gradients.

    Returns:
        A tensor like `clip`, without a graph, within +-eps and such that the sum shows pixels in
        [0, 255]. The random start draws from torch's global generator.
    """
    if steps < 1:
        raise UserError(f"steps is a count from 1 up, got {steps}")
    least, most = torch.maximum(clip - eps, low), torch.minimum(clip + eps, high)
    moved = clip + (2 * torch.rand_like(clip) - 1) * eps
    moved = torch.minimum(torch.maximum(moved, least), most).detach()
    for _ in range(steps):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss_of(moved), moved)
        ahead = moved.detach() + 2.5 * eps / steps * gradient.sign()
        moved = torch.minimum(torch.maximum(ahead, least), most)
    return moved - clip
