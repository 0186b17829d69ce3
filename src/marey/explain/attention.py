"""Attention maps: from the class token to the patches, of one block or rolled out through all
blocks.

Legend: B clips, T frames, h x w patch grid, N = h * w, L tokens. Maps are (B, T, h, w), not
negative.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError, unknown_name
from marey.inference.predictor import Predictor
from marey.video.clip import Clip

KINDS = ("rollout", "last")


def attention_map(
    outputs: dict[str, Any],
    num_frames: int,
    *,
    kind: str = "rollout",
    layer: int = -1,
    head: int | None = None,
) -> Tensor:
    """Return how much the class token draws on each patch.

    "last" is the attention of one layer as it is (mean over heads, or one head). "rollout" follows
    attention through all blocks, half of each step is the residual connection (Abnar and Zuidema,
    2020, Eq. 1). That paper has one attention per block; for divided attention we apply the spatial
    step, then the temporal step, going backwards from the class token. Signed (cosine) weights
    count by their size: a patch that pushes away matters too.

    Args:
        outputs: of `model(clip, return_attention=True)`.
        num_frames: T of the clip.
        layer, head: for "last".

    Returns:
        (B, T, h, w); models that merge frames into tubelets give the tubelet's value to each of its
        frames.

    Raises:
        UserError: if the model gave no attention, or the kind, layer or head does not exist.
    """
    if kind not in KINDS:
        raise unknown_name("attention map", kind, KINDS)
    if "attention_space" not in outputs and "attention_joint" not in outputs:
        raise UserError(
            "this model gives no attention; use gradient relevance or leave frames out instead"
        )
    if kind == "last":
        flat = _one_layer(outputs, layer, head)
    elif "attention_joint" in outputs:
        flat = _joint_rollout([weights.abs().mean(1) for weights in outputs["attention_joint"]])
    else:
        flat = _divided_rollout(
            outputs.get("attention_time") or [None] * len(outputs["attention_space"]),
            outputs["attention_space"],
        )
    return _grid(flat, num_frames)


def _one_layer(outputs: dict[str, Any], layer: int, head: int | None) -> Tensor:
    key = "attention_space" if "attention_space" in outputs else "attention_joint"
    layers = outputs[key]
    if not -len(layers) <= layer < len(layers):
        raise UserError(
            f"layer {layer} does not exist; the model has layers 0 to {len(layers) - 1}"
        )
    weights = layers[layer].abs()  # (B, T, heads, 1+N, 1+N) or (B, heads, L, L)
    heads = weights.shape[-3]
    if head is not None and not 0 <= head < heads:
        raise UserError(f"head {head} does not exist; layer {layer} has heads 0 to {heads - 1}")
    chosen = weights.mean(-3) if head is None else weights.select(-3, head)
    if key == "attention_space":
        return chosen[..., 0, 1:].flatten(1)
    return chosen[:, 0, 1:] if _has_cls(chosen.shape[-1]) else chosen.mean(1)


def _joint_rollout(layers: list[Tensor]) -> Tensor:
    """Roll out one attention per block, each (B, L, L), from the class token, or evenly where there
    is none."""
    B, L = layers[0].shape[:2]
    cls = _has_cls(L)
    relevance = layers[0].new_zeros(B, L)
    relevance[:, 0] = 1.0
    if not cls:
        relevance = torch.full_like(relevance, 1 / L)
    for weights in reversed(layers):
        rows = weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
        relevance = 0.5 * relevance + 0.5 * torch.einsum("bl,blm->bm", relevance, rows)
    return relevance[:, 1:] if cls else relevance


def _divided_rollout(time_layers: list[Any], space_layers: list[Tensor]) -> Tensor:
    """Roll divided attention out from the class token; returns (B, T * N), frame-major."""
    B, T, _, tokens, _ = space_layers[0].shape
    cls = space_layers[0].new_ones(B)
    patches = space_layers[0].new_zeros(B, T, tokens - 1)
    for time, space in zip(reversed(time_layers), reversed(space_layers), strict=True):
        rows = space.abs().mean(2)  # (B, T, 1+N, 1+N)
        rows = rows / rows.sum(-1, keepdim=True).clamp_min(1e-12)
        # the class token's output is the mean over frames of its T replicas
        source = torch.cat([(cls[:, None] / T).expand(B, T)[..., None], patches], dim=-1)
        reached = torch.einsum("btp,btpq->btq", source, rows)
        cls, patches = (
            0.5 * cls + 0.5 * reached[..., 0].sum(1),
            0.5 * patches + 0.5 * reached[..., 1:],
        )
        if time is not None:
            rows = time.abs().mean(2)  # (B, N, T, T [+1])
            rows = rows / rows.sum(-1, keepdim=True).clamp_min(1e-12)
            reached = torch.einsum("btn,bntu->bun", patches, rows[..., -T:])
            if rows.shape[-1] > T:
                cls = cls + 0.5 * torch.einsum("btn,bnt->b", patches, rows[..., 0])
            patches = 0.5 * patches + 0.5 * reached
    return patches.flatten(1)


def _has_cls(num_tokens: int) -> bool:
    """Return whether one token is left over beside a grid of square frames (T * N + 1 tokens)."""
    return num_tokens % 2 == 1


def _grid(flat: Tensor, num_frames: int) -> Tensor:
    """Shape (B, t * h * w) as (B, T, h, w) for square frames; each of t tubelets serves T / t
    frames."""
    B, count = flat.shape
    for tubelet in (1, 2, 4, 8):
        side = math.isqrt(count * tubelet // num_frames)
        if num_frames % tubelet == 0 and side * side * num_frames == count * tubelet:
            grid = flat.view(B, num_frames // tubelet, side, side)
            return grid.repeat_interleave(tubelet, dim=1)
    raise UserError(
        f"{count} patch tokens do not form {num_frames} square frames; attention maps need square "
        "crops"
    )


@torch.inference_mode()
def explain_clip(
    predictor: Predictor, frames: Tensor, **options: Any
) -> tuple[Tensor, dict[str, Any]]:
    """Return the attention map (T, h, w) of one clip of uint8 frames (T, 3, H, W), and the model's
    outputs."""
    clip = predictor.preprocess.clip(frames, num_spatial=1).to(predictor.device)
    outputs = predictor.model(clip, return_attention=True)
    return attention_map(outputs, frames.shape[0], **options)[0].cpu(), outputs


def lay_over(frames: Tensor, relevance: Tensor, strength: float = 0.6) -> Tensor:
    """Tint frames by a map: what matters keeps its colour and turns warm, the rest turns dark and
    grey.

    Args:
        frames: uint8, (T, 3, S, S): what the model saw.
        relevance: (T, h, w), any scale; one scale for all frames, so that frames can be compared.
        strength: 0 leaves the frames as they are, 1 shows the map alone.

    Returns:
        uint8, (T, 3, S, S).
    """
    size = tuple(frames.shape[-2:])
    high = relevance.flatten().quantile(0.98).clamp_min(1e-12)
    heat = F.interpolate((relevance / high).clamp(0, 1)[:, None], size=size, mode="bicubic").clamp(
        0, 1
    )
    colour = torch.cat([heat, heat * 0.55, 0.15 * (1 - heat)], dim=1) * 255
    grey = frames.float().mean(1, keepdim=True)
    shown = heat * frames.float() + (1 - heat) * 0.5 * grey
    mixed = (1 - strength * heat * 0.6) * shown + strength * heat * 0.6 * colour
    return (
        ((1 - strength) * frames.float() + strength * mixed).round().clamp(0, 255).to(torch.uint8)
    )


def overlay(predictor: Predictor, clip: Clip) -> Tensor:
    """Return the frames of a sampled clip, as the model saw them, with its rolled-out attention
    laid over.

    Raises:
        UserError: if the model gives no attention.
    """
    relevance, _ = explain_clip(predictor, clip.frames)
    seen = predictor.preprocess.geometry(clip.frames, 1)[0]
    return lay_over(seen, relevance)
