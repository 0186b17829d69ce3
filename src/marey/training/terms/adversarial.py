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
from marey.losses.adversarial import Norm, adversarial_perturbation
from marey.losses.attention_regularisation import attention_regularisation
from marey.training.objective_config import AdversarialConfig
from marey.training.task import Batch, Losses, Objective, Outputs, Terms

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
    "adversarial", beta that of "attention".

    Args:
        config: how inputs are perturbed, and the distance d.
        compare_attention: whether the term "attention" is computed.
    """

    def __init__(self, config: AdversarialConfig, *, compare_attention: bool) -> None:
        self.config, self.compare_attention = config, compare_attention

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

        # Eq. 3. The graph is kept: the clean loss is also trained on.
        perturbations = adversarial_perturbation(
            total(terms), list(inputs.values()), self.config.eps, self.config.norm
        )
        perturbed = perturb_inputs(inputs, perturbations)
        adversarial, adversarial_terms = losses(
            with_inputs(batch, perturbed), return_attention=self.compare_attention
        )

        terms = {**terms, "adversarial": total(adversarial_terms)}
        if self.compare_attention:
            terms["attention"] = attention_regularisation(
                outputs, adversarial, batch.get("mask"), kind=self.config.distance
            )
        return outputs, terms


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
    objective: Objective, model: nn.Module, batch: Batch, eps: float, norm: Norm = "frame"
) -> Batch:
    """Return the batch with every input perturbed by eps against the model (Eq. 3, for Fig. 7).

    Labels of the batch are those the loss is raised for; the model's mode and gradients are left as
    they are.
    """
    with torch.enable_grad():
        inputs = {
            path: tensor.detach().requires_grad_() for path, tensor in input_tensors(batch).items()
        }
        _, terms = objective(model, with_inputs(batch, inputs))
        perturbations = adversarial_perturbation(
            objective.total(terms), list(inputs.values()), eps, norm, retain_graph=False
        )
    return with_inputs(batch, perturb_inputs(inputs, perturbations))
