"""Adversarial attacks: small changes of a clip that make a model answer something else.

    result = attack(PixelModel(model, preprocess), clip, labels, "pgd", eps=8 / 255, steps=10)

Budgets are in pixel units, [0, 1] per value; 8 / 255 is eight grey levels. What an attack returns
is a uint8 clip: every candidate is rounded to whole grey levels before it is scored, and the worst
for the model of all candidates (every iterate, every restart, and the clean clip) is kept per
sample, so more steps or restarts never look weaker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from marey.attacks.flickering import flickering
from marey.attacks.geo_trap import geo_trap
from marey.attacks.gradient_sign import fgsm, pgd, pgd_l2
from marey.attacks.pixel_model import PixelModel
from marey.attacks.sparse import sparse
from marey.attacks.worst_case import AttackResult
from marey.errors import UserError, unknown_name

ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "pgd_l2": pgd_l2,
    "sparse": sparse,
    "flickering": flickering,
    "geo_trap": geo_trap,
}
"""Attack name -> its function. The attack on frame features of GAT,
`marey.attacks.features.gat_feature_attack`, moves features, not pixels."""


def list_attacks() -> list[str]:
    """Return the names `attack` takes."""
    return list(ATTACKS)


def attack(
    model: PixelModel, clip: Tensor, labels: Tensor, name: str = "pgd", **options: Any
) -> AttackResult:
    """Attack clips with a named attack.

    Args:
        model: a model of clips in [0, 1], see `PixelModel`.
        clip: uint8, (B, T, 3, H, W), RGB, at the model's own size.
        labels: int, (B,): the true classes.
        name: one of `list_attacks()`.
        options: arguments of the attack, for example eps, steps, targets, generator.

    Raises:
        UserError: if the name or an option is unknown, or the clip is not uint8.
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    function = ATTACKS[name]
    known = [
        key
        for key in inspect.signature(function).parameters
        if key not in ("model", "clip", "labels")
    ]
    for key in options:
        if key not in known:
            raise unknown_name(f"option of attack '{name}'", key, known)

    if clip.dtype != torch.uint8 or clip.dim() != 5:
        raise UserError(
            f"an attack starts from a uint8 clip (B, T, 3, H, W), got {clip.dtype} "
            f"{tuple(clip.shape)}"
        )
    return function(model, clip, labels, **options)
