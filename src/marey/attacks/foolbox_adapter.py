"""Foolbox's attacks on our models, scored as ours are: whole grey levels, never weaker than the
clean clip."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marey.attacks.pixel_model import PixelModel
from marey.attacks.worst_case import AttackResult, WorstCase
from marey.errors import import_extra


def foolbox_model(model: PixelModel) -> Any:
    """Return the model as `foolbox.PyTorchModel` with bounds (0, 1); it takes clips
    (B, T, 3, H, W).

    Raises:
        UserError: if Foolbox is not installed.
    """
    foolbox = import_extra("foolbox", "dev", "calling Foolbox's attacks")
    return foolbox.PyTorchModel(model, bounds=(0, 1))


def foolbox_attack(
    attack: Any, model: PixelModel, clip: Tensor, labels: Tensor, *, eps: float
) -> AttackResult:
    """Run a Foolbox attack and score its clip as ours are scored.

    Args:
        attack: for example `foolbox.attacks.LinfPGD(steps=10)`.
        model: a model of clips in [0, 1].
        clip: uint8, (B, T, 3, H, W).
        labels: int, (B,).
        eps: the budget, in the norm of the attack, pixel units.
    """
    worst = WorstCase(model, clip, labels)
    _, moved, _ = attack(foolbox_model(model), clip.float() / 255, labels, epsilons=eps)
    with torch.no_grad():
        worst.score(moved)
    return worst.result()
