"""The optimiser with its parameter groups, and parts of a model that do not train."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from marey.errors import UserError
from marey.training.config import OptimConfig

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|layers|layer|stages)\.(\d+)\.")
FUSED_ON = ("cpu", "cuda")
"""Devices on which Adam's update is one fused kernel: one pass over the weights instead of about
ten."""

_FIRST = re.compile(
    r"(?:^|\.)(?:stem|patch_embed|\w*embedding|\w*embeddings|cls_token|pos_embed|time_embed)(?:\.|$)"
)


def build_optimizer(
    model: nn.Module, config: OptimConfig, extra: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Build the optimiser; every group has its own "scale" of the learning rate and its own weight
    decay.

    Args:
        extra: a module whose parameters train along at the heads' rate (losses with parameters of
            their own).

    Raises:
        UserError: if nothing is left to train.
    """
    groups = parameter_groups(model, config)
    if extra is not None and any(True for _ in extra.parameters()):
        groups.append({"params": list(extra.parameters()), "weight_decay": 0.0, "scale": 1.0})
    if not any(group["params"] for group in groups):
        raise UserError("model.freeze leaves no parameter to train; freeze fewer parts")
    for group in groups:
        group["lr"] = config.peak_lr * group["scale"]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    fused = all(
        p.device.type in FUSED_ON and p.is_floating_point()
        for group in groups
        for p in group["params"]
    )
    return kind(groups, lr=config.peak_lr, fused=fused)


def rate_warning(config: OptimConfig) -> str | None:
    """Return a warning where Adam would run at a rate for SGD (76 points of top-1 less in the
    HMDB_simp study)."""
    if config.name == "sgd" or config.peak_lr <= 2e-3:
        return None
    return (
        f"optim.lr={config.peak_lr:g} is a rate for SGD; {config.name} usually needs 1e-5 to 1e-3 "
        "(TimeSformer with Adam: 17.6% at 0.0035, 89.6% at 0.0001; HMDB_simp study, Table 1)"
    )


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters by depth (layer-wise decay) and by whether weight decay
    applies to them."""
    depth = 1 + max(
        (layer for name, _ in model.named_parameters() if (layer := _block(name)) is not None),
        default=-1,
    )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = not config.decay_all and (parameter.ndim <= 1 or is_embedding(name))
            scale = rate_scale(name, depth, config)
            groups.setdefault((scale, 0.0 if spared else config.weight_decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "scale": scale}
        for (scale, decay), parameters in groups.items()
    ]


def rate_scale(name: str, depth: int, config: OptimConfig) -> float:
    """Return the factor of a parameter's learning rate: layer_decay^(depth - block).

    The stem and the embeddings stand before block 0 (exponent depth + 1), the last block has
    exponent 1, and what comes after the blocks (final norm, heads) has exponent 0.
    """
    block = _block(name)
    if block is not None:
        return config.layer_decay ** (depth - block)
    if is_first(name):
        return config.layer_decay ** (depth + 1)
    return 1.0


def _block(name: str) -> int | None:
    match = _BLOCK.search(name)
    return int(match.group(1)) if match and not is_first(name[: match.start()]) else None


def is_first(name: str) -> bool:
    """Return whether a parameter belongs to what comes before the blocks: stem, embeddings,
    tokens."""
    return _FIRST.search(name) is not None


def is_embedding(name: str) -> bool:
    """Return whether a parameter is a token or an embedding table rather than a matrix that
    multiplies."""
    return (
        re.search(r"(cls_token|(pos|time)_embed|(position|time)_embedding|\bembeddings?$)", name)
        is not None
    )


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Stop the gradients of all parameters whose name starts with a prefix; "*" freezes all but the
    heads.

    Raises:
        UserError: if a prefix fits no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    depth = 1 + max((layer for name in names if (layer := _block(name)) is not None), default=-1)
    for prefix in prefixes:
        chosen = [
            name
            for name in names
            if (_is_backbone(name, depth) if prefix == "*" else _starts(name, prefix))
        ]
        if not chosen:
            parts = sorted({name.split(".")[0] for name in names})
            raise UserError(
                f"model.freeze: no parameter starts with '{prefix}' (the model has: "
                f"{', '.join(parts)})"
            )
        for name in chosen:
            model.get_parameter(name).requires_grad_(False)


def _starts(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _is_backbone(name: str, depth: int) -> bool:
    return _block(name) is not None or is_first(name) or (name.startswith("norm.") and depth > 0)
