"""Adversarial training as an option of every task: an objective around another objective.

Source: Sahu et al., Algorithm 1. `--set objective.arguments.adversarial='{"eps": 0.5}'` turns it on for any recipe. A
step costs two forward passes (clean, adversarial) and two backward passes (inputs, parameters).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.losses.adversarial import Norm, adversarial_perturbation
from marey.losses.attention_regularisation import AttentionRegularisation, Levels
from marey.training.task import Batch, Objective, Outputs, Terms

INPUT_KEYS = ("clip", "features")
"""Entries of a batch that are inputs of a model, where they occur: a float tensor (B, T, ...) or a dict of such."""


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """How inputs are moved and what is asked of the moved ones; the defaults are the paper's."""

    eps: float = 0.5
    """Length of the perturbation, in units of the input the model reads (for clips: after normalisation)."""
    alpha: float = 1.0
    """Weight of the loss on adversarial inputs."""
    norm: Norm = "frame"
    """One length a frame, or one for the whole clip."""
    attention: Literal["frobenius", "js"] | None = None
    """Which distance of attention maps is added; None adds none (L_Adv)."""
    beta: float | None = None
    """Weight of that distance; None is the paper's: 0.001 for "frobenius", 0.01 for "js"."""
    levels: Levels = "global"
    """Which maps of a gated attention are compared."""
    layer_weights: tuple[float, ...] | None = None
    """Factor of each layer's distance; None is 1."""

    @property
    def attention_weight(self) -> float:
        """The weight in force."""
        return self.beta if self.beta is not None else {"frobenius": 0.001, "js": 0.01}.get(self.attention or "", 0.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AdversarialConfig:
        """Build from `objective.arguments["adversarial"]`.

        Raises:
            UserError: if a key is unknown or a value has no meaning.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise unknown_name("setting of objective.arguments.adversarial:", key, known)
        typed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                                 for key, value in values.items()}
        config = cls(**typed)
        if not config.eps > 0 or config.alpha < 0 or config.attention not in (None, "frobenius", "js") \
                or config.norm not in ("frame", "clip"):
            raise UserError("objective.arguments.adversarial takes eps above 0, alpha of 0 or more, norm 'frame' or "
                            f"'clip' and attention null, 'frobenius' or 'js', got {dict(values)}")
        return config


class AskForAttention(nn.Module):
    """A model that is always asked for its maps; used for one call and not kept."""

    def __init__(self, model: nn.Module) -> None:
        """Stand in for `model`."""
        super().__init__()
        object.__setattr__(self, "inner", model)               # no submodule: its parameters belong to the model alone
        self.training = model.training

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked is the model's."""
        return getattr(object.__getattribute__(self, "inner"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with `return_attention=True`."""
        return self.inner(*args, **{**kwargs, "return_attention": True})


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
        raise UserError(f"adversarial training moves the inputs {', '.join(INPUT_KEYS)}, but a batch of this task has "
                        f"{', '.join(batch)}")
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


class AdversarialObjective(Objective):
    """L = L_base + alpha * L_base(X + R) + beta * distance of the attention maps (Algorithm 1)."""

    def __init__(self, base: Objective, config: AdversarialConfig) -> None:
        """Wrap an objective; terms "adversarial" and "attention" get the weights alpha and beta."""
        super().__init__({**base.weights, "adversarial": config.alpha, "attention": config.attention_weight})
        self.base, self.config = base, config
        self.regularisation = (AttentionRegularisation(config.attention, config.levels, config.layer_weights)
                               if config.attention else None)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the outputs for the clean inputs and all terms; without gradients (evaluation) the base's alone."""
        self.base.step, self.base.total_steps = self.step, self.total_steps
        if not (model.training and torch.is_grad_enabled()):
            return self.base(model, batch)
        asked = AskForAttention(model) if self.regularisation else model
        inputs = {path: tensor.detach().requires_grad_() for path, tensor in input_tensors(batch).items()}
        with same_randomness(next(iter(inputs.values())).device):                          # dropout and mixup repeat
            outputs, terms = self.base(asked, with_inputs(batch, inputs))
        moves = adversarial_perturbation(self.base.total(terms), list(inputs.values()), self.config.eps,
                                         self.config.norm)
        moved = {path: (tensor + move).detach() for (path, tensor), move in zip(inputs.items(), moves, strict=True)}
        adversarial, adversarial_terms = self.base(asked, with_inputs(batch, moved))
        terms = {**terms, "adversarial": self.base.total(adversarial_terms)}
        if self.regularisation is not None:
            terms |= self.regularisation(outputs, adversarial, batch.get("mask"))
        return outputs, terms


def same_randomness(device: torch.device) -> Any:
    """Return a context after which torch's generators stand where they stood before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def perturb(objective: Objective, model: nn.Module, batch: Batch, eps: float, norm: Norm = "frame") -> Batch:
    """Attack a model: return the batch with every input moved by eps against it (Eq. 3), for evaluation (Fig. 7).

    Labels of the batch are those the loss is raised for; the model's mode and gradients are left as they are.
    """
    with torch.enable_grad():
        inputs = {path: tensor.detach().requires_grad_() for path, tensor in input_tensors(batch).items()}
        _, terms = objective(model, with_inputs(batch, inputs))
        moves = adversarial_perturbation(objective.total(terms), list(inputs.values()), eps, norm, retain_graph=False)
    return with_inputs(batch, {path: (tensor + move).detach()
                               for (path, tensor), move in zip(inputs.items(), moves, strict=True)})
