"""The terms "adversarial" and "attention" of every task: adversarial training.

Sahu et al., "GAT", Algorithm 1. A step costs two forward passes (clean, perturbed) and two backward
passes (inputs, parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.losses.adversarial import Norm, adversarial_perturbation, linf_perturbation
from marey.losses.attention_regularisation import attention_regularisation
from marey.training.objective_config import AdversarialConfig
from marey.training.task import Batch, Losses, Objective, Outputs, Terms
from marey.transforms.preprocess import Preprocess

INPUT_KEYS = ("clip", "features")
"""Entries of a batch that are inputs of a model, where they occur: a float tensor (B, T, ...) or a
dict of such."""


Inputs = Mapping[tuple[str, ...], Tensor]
"""Path in a batch, e.g. ("clip",) or ("features", "rgb") -> input of the model."""


class AdversarialTraining:
    """The terms on clean inputs, and the terms "adversarial" and "attention" on perturbed inputs.

    Sahu et al., Algorithm 1, with R of Eq. 3 and G = dL_clean(X) / dX:

        L = L_clean(X) + alpha L_clean(X + R) + beta d(A(X), A(X + R)),    R = eps G / ||G||_2

    L_clean is the weighted sum of the other terms, A are the attention maps; alpha is the weight of
    "adversarial", beta that of "attention". With `norm="linf"` R is found by projected gradient
    steps inside the box of `eps` in pixel units instead (Madry et al., ICLR 2018), the box that the
    attacks of `marey.attacks.threat_models` search.

    Args:
        config: how inputs are perturbed, and the distance d.
        compare_attention: whether the term "attention" is computed.
        preprocess: how pixels become clips; needed for `norm="linf"`.

    Raises:
        UserError: if the norm is "linf" and the task does not read clips of pixels.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        *,
        compare_attention: bool,
        preprocess: Preprocess | None = None,
    ) -> None:
        if config.norm == "linf" and preprocess is None:
            raise UserError(
                "objective.adversarial.norm=linf is a box around pixels, and this task does not "
                "read clips of pixels; use norm=frame or norm=clip"
            )
        self.config, self.compare_attention = config, compare_attention
        self.preprocess = preprocess

    def __call__(
        self, losses: Losses, total: Callable[[Terms], Tensor], batch: Batch
    ) -> tuple[Outputs, Terms]:
        """Return the outputs for the clean inputs and all terms.

        Args:
            losses: outputs and terms of a prepared batch.
            total: the weighted sum of terms.
            batch: prepared: its inputs are what the model reads.
        """
        inputs = {
            path: tensor.detach().requires_grad_() for path, tensor in input_tensors(batch).items()
        }
        with same_randomness(next(iter(inputs.values())).device):  # both passes drop the same units
            outputs, terms = losses(
                with_inputs(batch, inputs), return_attention=self.compare_attention
            )

        if self.config.norm == "linf":
            perturbations = [self._in_box(losses, total, batch, inputs)]
        else:
            # Eq. 3. The graph is kept: the clean loss is also trained on.
            perturbations = adversarial_perturbation(
                total(terms),
                list(inputs.values()),
                self.config.eps,
                self.config.norm,
                relative=self.config.relative,
            )
        perturbed = perturb_inputs(inputs, perturbations)
        adversarial, adversarial_terms = losses(
            with_inputs(batch, perturbed), return_attention=self.compare_attention
        )

        terms = {**terms, "adversarial": total(adversarial_terms)}
        if self.compare_attention:
            terms["attention"] = attention_regularisation(
                outputs,
                adversarial,
                batch.get("mask"),
                kind=self.config.distance,
                levels=self.config.levels,
            )
        return outputs, terms

    def _in_box(
        self, losses: Losses, total: Callable[[Terms], Tensor], batch: Batch, inputs: Inputs
    ) -> Tensor:
        """Return R of the clip of a batch for the norm "linf"."""
        (path, clip), *others = inputs.items()
        if path != ("clip",) or others:
            raise UserError(
                "norm=linf perturbs one clip of pixels, but the batch has "
                f"{', '.join(map(str, inputs))}"
            )
        assert self.preprocess is not None
        pixels = torch.tensor([0.0, 255.0], device=clip.device) * self.preprocess.rescale
        mean, std = (
            torch.tensor(values, device=clip.device).view(1, 1, 3, 1, 1)
            for values in (self.preprocess.mean, self.preprocess.std)
        )

        def loss_of(moved: Tensor) -> Tensor:
            return total(losses(with_inputs(batch, {path: moved}))[1])

        return linf_perturbation(
            loss_of,
            clip.detach(),
            self.config.eps * 255 * self.preprocess.rescale / std,
            (pixels[0] - mean) / std,
            (pixels[1] - mean) / std,
            steps=self.config.steps,
        )


def input_tensors(batch: Batch) -> dict[tuple[str, ...], Tensor]:
    """Return the model's inputs in a batch by their path, e.g. ("clip",) or ("features", "rgb").

    Raises:
        UserError: if there is none.
    """
    found: dict[tuple[str, ...], Tensor] = {}
    for key in INPUT_KEYS:
        value = batch.get(key)
        if isinstance(value, Mapping):
            found.update({(key, name): tensor for name, tensor in value.items()})
        elif isinstance(value, Tensor) and value.is_floating_point():
            found[(key,)] = value
    if not found:
        raise UserError(
            f"adversarial training perturbs the inputs {', '.join(INPUT_KEYS)}, but a batch of "
            f"this task has {', '.join(batch)}"
        )
    return found


def with_inputs(batch: Batch, inputs: Inputs) -> Batch:
    """Return the batch with other inputs."""
    changed: Batch = dict(batch)
    for (key, *rest), tensor in inputs.items():
        if rest:
            changed[key] = {**changed[key], rest[0]: tensor}
        else:
            changed[key] = tensor
    return changed


def perturb_inputs(inputs: Inputs, perturbations: list[Tensor]) -> dict[tuple[str, ...], Tensor]:
    """Return X + R, without a graph."""
    pairs = zip(inputs.items(), perturbations, strict=True)
    return {path: (tensor + perturbation).detach() for (path, tensor), perturbation in pairs}


def same_randomness(device: torch.device) -> Any:
    """Return a context after which torch's generators stand where they stood before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def perturb(
    objective: Objective,
    model: nn.Module,
    batch: Batch,
    eps: float,
    norm: Norm = "frame",
    *,
    relative: bool = False,
    steps: int = 1,
) -> Batch:
    """Return the batch with every input perturbed by at most eps against the model (for Fig. 7).

    One step is Eq. 3. Several steps are projected gradient ascent (Madry et al., "Towards deep
    learning models resistant to adversarial attacks", 2018): each moves every frame by
    2.5 eps / steps along its gradient and projects the whole move back to length eps.

    Labels of the batch are those the loss is raised for; the model's mode and gradients are left as
    they are.

    Args:
        eps, norm, relative: as `AdversarialConfig`.
        steps: 1 or more.
    """
    clean = {path: tensor.detach() for path, tensor in input_tensors(batch).items()}
    if steps == 1:
        moves = ascend(objective, model, batch, clean, eps, norm, relative)
        return with_inputs(batch, perturb_inputs(clean, moves))

    # The radius of every frame: that of one whole step, which has exactly this length.
    first = ascend(objective, model, batch, clean, eps, norm, relative)
    radii = [_lengths(move, norm) for move in first]
    moves = [torch.zeros_like(move) for move in first]
    for _ in range(steps):
        there = perturb_inputs(clean, moves)
        directions = ascend(objective, model, batch, there, 1.0, norm, False)
        moves = [
            _project(move + 2.5 / steps * radius * direction, radius, norm)
            for move, direction, radius in zip(moves, directions, radii, strict=True)
        ]
    return with_inputs(batch, perturb_inputs(clean, moves))


def ascend(
    objective: Objective,
    model: nn.Module,
    batch: Batch,
    inputs: Inputs,
    eps: float,
    norm: Norm,
    relative: bool,
) -> list[Tensor]:
    """Return the step of Eq. 3 for every input, from where the inputs are."""
    with torch.enable_grad():
        inputs = {path: tensor.detach().requires_grad_() for path, tensor in inputs.items()}
        _, terms = objective(model, with_inputs(batch, inputs))
        return adversarial_perturbation(
            objective.total(terms),
            list(inputs.values()),
            eps,
            norm,
            relative=relative,
            retain_graph=False,
        )


def _lengths(move: Tensor, norm: Norm) -> Tensor:
    """Return the L2 norm of every frame (or clip) of a move (B, T, ...), shaped to broadcast."""
    start = 2 if norm == "frame" and move.dim() > 2 else 1
    length = torch.linalg.vector_norm(move.flatten(start), dim=-1)
    return length.view(*length.shape, *[1] * (move.dim() - length.dim()))


def _project(move: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Shorten every frame (or clip) of a move to at most its radius."""
    length = _lengths(move, norm)
    return move * (radius / length.clamp(min=1e-12)).clamp(max=1.0)
