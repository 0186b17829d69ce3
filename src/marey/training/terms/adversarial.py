"""The terms "adversarial" and "attention": adversarial training, for every task (Sahu et al.,
Algorithm 1).

A step costs two forward passes (clean, moved) and two backward passes (inputs, parameters).
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


class AdversarialTraining:
    """The terms of clean inputs, and beside them "adversarial" and "attention" of moved inputs
    (Algorithm 1).

    L = L_clean + alpha * L_clean(X + R) + beta * distance of the attention maps, where alpha and
    beta are the weights of the two terms and L_clean is the weighted sum of the other terms.

    Args:
        config: how inputs are moved.
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
        with same_randomness(next(iter(inputs.values())).device):  # dropout repeats
            outputs, terms = losses(
                with_inputs(batch, inputs), return_attention=self.compare_attention
            )

        moves = adversarial_perturbation(
            total(terms), list(inputs.values()), self.config.eps, self.config.norm
        )
        moved = move_inputs(inputs, moves)
        adversarial, adversarial_terms = losses(
            with_inputs(batch, moved), return_attention=self.compare_attention
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
            f"adversarial training moves the inputs {', '.join(INPUT_KEYS)}, but a batch of this "
            "task has "
            f"{', '.join(batch)}"
        )
    return found


def with_inputs(batch: Batch, inputs: Mapping[tuple[str, ...], Tensor]) -> Batch:
    """Return the batch with other inputs."""
    changed: Batch = dict(batch)
    for (key, *rest), tensor in inputs.items():
        if rest:
            changed[key] = {**changed[key], rest[0]: tensor}
        else:
            changed[key] = tensor
    return changed


def move_inputs(
    inputs: Mapping[tuple[str, ...], Tensor], moves: list[Tensor]
) -> dict[tuple[str, ...], Tensor]:
    """Return X + R, without a graph."""
    return {
        path: (tensor + move).detach()
        for (path, tensor), move in zip(inputs.items(), moves, strict=True)
    }


def same_randomness(device: torch.device) -> Any:
    """Return a context after which torch's generators stand where they stood before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def perturb(
    objective: Objective, model: nn.Module, batch: Batch, eps: float, norm: Norm = "frame"
) -> Batch:
    """Attack a model: return the batch with every input moved by eps against it (Eq. 3), for
    evaluation (Fig. 7).

    Labels of the batch are those the loss is raised for; the model's mode and gradients are left as
    they are.
    """
    with torch.enable_grad():
        inputs = {
            path: tensor.detach().requires_grad_() for path, tensor in input_tensors(batch).items()
        }
        _, terms = objective(model, with_inputs(batch, inputs))
        moves = adversarial_perturbation(
            objective.total(terms), list(inputs.values()), eps, norm, retain_graph=False
        )
    return with_inputs(batch, move_inputs(inputs, moves))
