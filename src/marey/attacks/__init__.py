"""Adversarial attacks: small changes of a clip that make a model answer something else.

    result = attack(PixelModel(model, preprocess), clip, labels, "pgd", eps=8 / 255, steps=10)

Budgets are in pixel units, [0, 1] per value; 8 / 255 is eight grey levels. What an attack returns
is a uint8 clip: every candidate is rounded to whole grey levels before it is scored, and the worst
for the model of all candidates (every iterate, every restart, and the clean clip) is kept per
sample, so more steps or restarts never look weaker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marey.attacks.apgd import apgd_ce, apgd_dlr, apgd_t
from marey.attacks.fab import fab
from marey.attacks.flickering import flickering
from marey.attacks.geo_trap import geo_trap
from marey.attacks.gradient_sign import fgsm, pgd, pgd_l2
from marey.attacks.motion_excited import motion_excited
from marey.attacks.pixel_model import PixelModel
from marey.attacks.random_noise import random_noise
from marey.attacks.sparse import sparse
from marey.attacks.square import square
from marey.attacks.worst_case import AttackResult
from marey.errors import UserError, unknown_name

ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "pgd_l2": pgd_l2,
    "apgd_ce": apgd_ce,
    "apgd_dlr": apgd_dlr,
    "apgd_t": apgd_t,
    "fab": fab,
    "square": square,
    "sparse": sparse,
    "flickering": flickering,
    "geo_trap": geo_trap,
    "motion_excited": motion_excited,
    "random_noise": random_noise,
}
"""Attack name -> its function. The attack on frame features of GAT,
`marey.attacks.features.gat_feature_attack`, moves features, not pixels."""


VALUE_ATTACKS = tuple(name for name in ATTACKS if name != "pgd_l2")
"""Attacks whose eps and step bound the change of single values; that of pgd_l2 is a length."""


def list_attacks() -> list[str]:
    """Return the names `attack` takes."""
    return list(ATTACKS)


def attack(
    model: nn.Module, clip: Tensor, labels: Tensor, name: str = "pgd", **options: Any
) -> AttackResult:
    """Attack clips with a named attack.

    Args:
        model: a model of clips in [0, 1], see `PixelModel`; any other module is taken to read such
            clips as they are, and to return logits or a dict with "logits".
        clip: uint8, (B, T, 3, H, W), RGB, at the model's own size.
        labels: int, (B,): the true classes.
        name: one of `list_attacks()`.
        options: arguments of the attack, for example eps, steps, targets, generator.

    Raises:
        UserError: if the name or an option is unknown, the clip is not uint8, or a label is no
            class of the model.
    """
    check_options(name, options)
    if clip.dtype != torch.uint8 or clip.dim() != 5:
        raise UserError(
            f"an attack starts from a uint8 clip (B, T, 3, H, W), got {clip.dtype} "
            f"{tuple(clip.shape)}"
        )
    if not isinstance(model, PixelModel):
        model = PixelModel(model, mean=(0.0,) * 3, std=(1.0,) * 3)
    _check_labels(model, clip, labels)
    return ATTACKS[name](model, clip, labels, **options)


def _check_labels(model: PixelModel, clip: Tensor, labels: Tensor) -> None:
    """Refuse labels that the model cannot have been asked for.

    Raises:
        UserError: if there is not one whole number per clip, each a class of the model.
    """
    if labels.is_floating_point() or labels.shape != clip.shape[:1]:
        raise UserError(
            f"labels are class numbers, int (B,) with B = {len(clip)}, got {labels.dtype} "
            f"{tuple(labels.shape)}"
        )
    asked = model.queries
    with torch.no_grad():
        classes = model(clip[:1].float() / 255).shape[-1]
    model.queries = asked
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UserError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, the model has classes 0 "
            f"to {classes - 1}"
        )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check the options of an attack by name, kind and unit, before any video is opened.

    Raises:
        UserError: if the attack or an option is unknown, a number is not one, a count is below 1,
            or a change of pixel values lies outside (0, 1].
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    parameters = inspect.signature(ATTACKS[name]).parameters
    known = [key for key in parameters if key not in ("model", "clip", "labels")]
    for key, value in options.items():
        if key not in known:
            raise unknown_name(f"option of attack '{name}'", key, known)
        default = parameters[key].default
        if not isinstance(default, (int, float)) or isinstance(default, bool):
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
            raise UserError(f"{name}.{key} is a number, such as {default}, got {value!r}")
        if isinstance(default, int) and (not isinstance(value, int) or value < 1):
            raise UserError(f"{name}.{key} is a count from 1 up, got {value!r}")
        if name in VALUE_ATTACKS and key in ("eps", "step") and not 0 < value <= 1:
            raise UserError(
                f"{name}.{key} is a change of a pixel value in (0, 1], got {value}; grey levels "
                f"are written as parts of 255: {name}.{key}={value:g}/255"
            )
