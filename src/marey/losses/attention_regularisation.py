"""Attention-map regularisation: keep the maps similar under adversarial perturbation.

Source: Sahu et al., section 3.2.1 (L_advFr, L_advJS) and Algorithm 1. In the line of the
adversarial map the algorithm
prints X where X^ad is meant; we use X^ad. Maps are averaged over heads, before dropout, and only
rows of real frames count, with T their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marey.errors import UserError

Levels = Literal["global", "global+local"]


def frobenius_distance(maps: Tensor, adversarial: Tensor) -> Tensor:
    r"""Return (1/L) sum_i ||A_i - A_i^adv||_Fr, with gradient 0 (not NaN) where the maps are equal.

    Args:
        maps, adversarial: float (L, R, C), head-averaged, zeros in rows of padding.
    """
    return torch.linalg.vector_norm((maps - adversarial).flatten(1), dim=1).mean()


def jensen_shannon_distance(
    maps: Tensor, adversarial: Tensor, rows: Tensor | None = None
) -> Tensor:
    r"""Return (1/L) sum_i (1/T_i) sum_t JSD(A_it, A_it^adv), natural logarithm, in [0, log 2].

    Args:
        maps, adversarial: float (L, R, C), rows are distributions.
        rows: bool (L, R), True where a row counts; T_i is their number. None counts all.

    Raises:
        UserError: if an entry is negative: directed (cosine) attention is no distribution.
    """
    if bool((maps.detach() < 0).any()):
        raise UserError(
            "the Jensen-Shannon distance needs attention rows that are distributions; directed "
            "(cosine) attention is signed: choose attention='frobenius'"
        )
    tiny = torch.finfo(maps.dtype).tiny
    # JSD(p, q) = (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2.
    middle = ((maps + adversarial) / 2).clamp(min=tiny).log()
    divergence = (
        sum((part * (part.clamp(min=tiny).log() - middle)).sum(-1) for part in (maps, adversarial))
        / 2
    )
    if rows is None:
        return divergence.mean()
    divergence = divergence.masked_fill(~rows, 0.0).sum(1) / rows.sum(1).clamp(min=1)
    return divergence.mean()


def attention_layers(
    outputs: Mapping[str, Any], mask: Tensor | None = None, levels: Levels = "global"
) -> Iterator[list[tuple[Tensor, Tensor | None]]]:
    """Yield, for every stack of layers of a model, its maps as (L, R, C) with the rows that count.

    Reads `attention` of GAT (one stack per modality) and `attention_time`, `attention_space` of the
    clip models.

    Raises:
        UserError: if the outputs hold no map.
    """
    stacks = 0
    for layers in outputs.get("attention", {}).values():
        stacks += 1
        yield [pair for layer in layers for pair in _gat_maps(layer, mask, levels)]
    for name in ("attention_time", "attention_space"):
        if outputs.get(name):
            stacks += 1
            yield [
                (layer.mean(2).flatten(0, 1), None) for layer in outputs[name]
            ]  # heads are the third axis
    if not stacks:
        raise UserError(
            "this model returns no attention maps, so they cannot be regularised; use a model with "
            "attention or leave out 'attention'"
        )


def _gat_maps(
    layer: Mapping[str, Any], mask: Tensor | None, levels: Levels
) -> Iterator[tuple[Tensor, Tensor | None]]:
    if layer["global_map"] is not None:
        yield layer["global_map"].mean(1), mask
    elif levels == "global":
        raise UserError(
            "the model has no global expert; add null to its windows or use levels='global+local'"
        )
    if levels == "global+local":
        for window, local in layer["local_maps"].items():
            maps = local.mean(1)  # (B, N, W, W)
            rows = None
            if mask is not None:
                # The last window may reach beyond T; those rows do not count.
                padding = maps.shape[1] * window - mask.shape[1]
                rows = nn.functional.pad(mask, (0, padding)).flatten(1)
            yield maps.flatten(1, 2), rows


def attention_regularisation(
    outputs: Mapping[str, Any],
    adversarial: Mapping[str, Any],
    mask: Tensor | None = None,
    *,
    kind: Literal["frobenius", "js"] = "frobenius",
    levels: Levels = "global",
    layer_weights: Sequence[float] | None = None,
) -> Tensor:
    """Compare the maps of a model for inputs and for their adversarial counterparts.

    Args:
        outputs, adversarial: of the model with `return_attention=True`.
        mask: bool (B, T), real frames, for models that take one.
        kind: "frobenius" (L_advFr) or "js" (L_advJS).
        levels: the global map, as in the paper's experiments, or also the local ones.
        layer_weights: factor of each layer, shallow first; None weighs all by 1.

    Returns:
        Scalar: the sum over modalities (Algorithm 1) and layers.
    """
    terms = []
    for ours, theirs in zip(
        attention_layers(outputs, mask, levels),
        attention_layers(adversarial, mask, levels),
        strict=True,
    ):
        weights = [1.0] * len(ours) if layer_weights is None else list(layer_weights)
        if len(weights) != len(ours):
            raise UserError(
                f"layer_weights has {len(weights)} entries, but there are {len(ours)} maps per "
                "modality"
            )
        for weight, (clean, rows), (moved, _) in zip(weights, ours, theirs, strict=True):
            distance = (
                frobenius_distance(clean, moved)
                if kind == "frobenius"
                else jensen_shannon_distance(clean, moved, rows)
            )
            terms.append(weight * distance)
    return torch.stack(terms).sum()
