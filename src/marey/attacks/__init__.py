"""Adversarial change to a clip: the smallest-looking change that makes a model answer something else.

    result = attack(PixelModel(model, preprocess), clip, labels, "pgd", eps=8 / 255, steps=10)

Budgets are in pixel units, [0, 1] per value; 8 / 255 is eight grey levels. What an attack returns is a uint8 clip:
every candidate is rounded to whole grey levels before it is scored, and the worst for the model of all candidates
(every iterate, every restart, and the clean clip) is kept per sample, so more steps or restarts never look weaker.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from marey.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from marey.attacks.pixel_model import PixelModel
    from marey.attacks.worst_case import AttackResult

ATTACKS: dict[str, str] = {
    "fgsm": "marey.attacks.gradient_sign:fgsm",
    "pgd": "marey.attacks.gradient_sign:pgd",
    "pgd_l2": "marey.attacks.gradient_sign:pgd_l2",
    "sparse": "marey.attacks.sparse:sparse",
    "flickering": "marey.attacks.flickering:flickering",
    "geo_trap": "marey.attacks.geo_trap:geo_trap",
}
"""Attack name -> "module:function"; the key is the function's name. The attack on frame features of GAT is
`marey.attacks.features:gat_feature_attack`: it moves features, not pixels."""


def list_attacks() -> list[str]:
    """Return the names `attack` takes."""
    return list(ATTACKS)


def attack(model: PixelModel, clip: Tensor, labels: Tensor, name: str = "pgd", **options: Any) -> AttackResult:
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
    import torch

    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    module, attribute = ATTACKS[name].split(":")
    function = getattr(importlib.import_module(module), attribute)
    known = inspect.signature(function).parameters
    for key in options:
        if key not in known:
            raise unknown_name(f"option of attack '{name}'", key, [p for p in known if p not in
                                                                   ("model", "clip", "labels")])
    if clip.dtype != torch.uint8 or clip.dim() != 5:
        raise UserError(f"an attack starts from a uint8 clip (B, T, 3, H, W), got {clip.dtype} {tuple(clip.shape)}")
    return function(model, clip, labels, **options)
