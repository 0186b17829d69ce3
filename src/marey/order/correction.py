"""Put shuffled frames back in order by the directed attention of a model.

`order` is the gather that shuffled a clip (`order[t]`: original index of the frame at position t).
`path` lists positions in recovered chronological order: `shuffled[path]` is the corrected clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from marey.errors import UserError, unknown_name
from marey.order.path import hamiltonian_path, oriented_path, sorted_path

METHODS = ("path", "sort", "oriented")
"""How the order is read: the heaviest path of the directed matrix (the paper's), its nodes sorted,
or the shortest path through the frames' appearance in the direction the matrix says."""

SIDE = 32
"""Frames are compared at no more than so many rows and columns."""


class NoTemporalAttentionError(UserError):
    """The model has no attention over time, so no order can be read from it."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The recovered order of a batch of clips."""

    path: Tensor
    """int64, (B, T), positions in recovered chronological order."""
    weights: Tensor
    """float32, (B, T, T), the directed graph: entry (t, t') is large where t comes before t'."""


def order_matrix(attention_time: Sequence[Tensor], num_frames: int) -> Tensor:
    """Average the temporal attention of the last block over patches and heads, without the CLS
    column.

    Truong et al., "DirecFormer", CVPR 2022, section 4.3: "we use the temporal attention of the last
    block and average this temporal attention over the spatial dimension".

    Args:
        attention_time: one tensor per block, (B, N, heads, T, T or 1 + T).
        num_frames: T.

    Returns:
        float32, (B, T, T).

    Raises:
        UserError: if there is no attention over T frames.
    """
    if len(attention_time) == 0 or attention_time[-1].shape[-2] != num_frames:
        got = "none" if len(attention_time) == 0 else f"{attention_time[-1].shape[-2]} frames"
        raise UserError(f"expected temporal attention over {num_frames} frames, got {got}")
    return attention_time[-1][..., -num_frames:].float().mean(dim=(1, 2))


def frame_distances(clip: Tensor) -> Tensor:
    """Return how different the frames of clips look, float32 (B, T, T): root mean square.

    Args:
        clip: float (B, T, C, H, W), compared at no more than `SIDE` rows and columns; or keypoints
            (B, T, P * 17, 3), compared where both frames show them.
    """
    if clip.ndim == 5:
        small = (min(SIDE, clip.shape[3]), min(SIDE, clip.shape[4]))
        flat = adaptive_avg_pool2d(clip.flatten(0, 1).float(), small).unflatten(0, clip.shape[:2])
        values = flat.flatten(2)
        return torch.cdist(values, values) / values.shape[-1] ** 0.5
    places, seen = clip[..., :2].float(), (clip[..., 2] > 0).float()  # (B, T, J, 2), (B, T, J)
    both = seen[:, :, None] * seen[:, None]
    apart = (places[:, :, None] - places[:, None]).square().sum(-1) * both
    distance = (apart.sum(-1) / both.sum(-1).clamp_min(1)).sqrt()
    # frames that share no keypoint are as far apart as any
    return torch.where(both.sum(-1) > 0, distance, distance.amax((1, 2), keepdim=True))


def read_order(weights: Tensor, method: str, distances: Tensor | None = None) -> Tensor:
    """Read the order from directed matrices, int64 (B, T).

    Args:
        weights: (B, T, T), of `order_matrix`.
        method: one of `METHODS`.
        distances: (B, T, T), of `frame_distances`; "oriented" needs them.

    Raises:
        UserError: if the method is unknown or the distances are missing.
    """
    if method not in METHODS:
        raise unknown_name("method of order correction", method, METHODS)
    if method == "path":
        return hamiltonian_path(weights)[0]
    if method == "sort":
        return sorted_path(weights)[0]
    if distances is None:
        raise UserError(
            "method 'oriented' compares the frames themselves, and these answers were stored "
            "without; answer the clips again"
        )
    return oriented_path(weights, distances)[0]


def recover_order(model: nn.Module, clip: Tensor, *, method: str = "path") -> Correction:
    """Recover the order of the frames of clips from a model's temporal attention (section 4.3 of
    the paper).

    Args:
        model: one whose `return_attention=True` gives "attention_time" (TimeSformer, DirecFormer,
            SeViTAR), in eval mode; softmax attention is accepted, as in Table 2, and recovers
            little.
        clip: float, (B, T, C, H, W), normalised, or keypoints (B, T, P * 17, 3); frames in any
            order.
        method: one of `METHODS`: "path" (the paper's heaviest Hamiltonian path), "sort" (by net
            directed weight), or "oriented" (neighbours by appearance, direction by the matrix).

    Raises:
        UserError: if the model gives no temporal attention, T < 2, the attention is NaN, or the
            method is unknown.
    """
    if method not in METHODS:
        raise unknown_name("method of order correction", method, METHODS)
    with torch.inference_mode():
        outputs = attention_outputs(model, clip)
    weights = order_matrix(outputs["attention_time"], clip.shape[1])
    path = read_order(weights, method, frame_distances(clip))
    return Correction(path=path, weights=weights)


def attention_outputs(model: nn.Module, clip: Tensor) -> dict[str, Any]:
    """Return the model's outputs with temporal attention.

    Raises:
        NoTemporalAttentionError: if the model has none.
    """
    try:
        outputs = model(clip, return_attention=True)
    except (TypeError, UserError):
        model(clip)  # an unsuitable clip raises here
        outputs = {}
    if not outputs.get("attention_time"):
        raise NoTemporalAttentionError(
            f"{type(model).__name__} gives no temporal attention, so it cannot recover an "
            "order; use a model with divided directed attention, such as marey-mini-order"
        )
    return outputs


def permute_frames(clip: Tensor, order: Tensor) -> Tensor:
    """Return clips with their frames gathered: out[b, t] = clip[b, order[b, t]]; (B, T, ...) and
    (B, T)."""
    if clip.shape[:2] != order.shape:
        raise UserError(
            f"clips of {clip.shape[1]} frames do not fit permutations of {order.shape[1]} frames "
            f"({clip.shape[0]} clips, {order.shape[0]} permutations)"
        )
    return clip[torch.arange(len(clip), device=clip.device)[:, None], order]


def check_distinct_frames(frames: Tensor, *, name: str = "the clip") -> None:
    """Raise a UserError if two frames of a clip (T, C, H, W) are equal: their order cannot be
    recovered.

    Repeated frames come from sampling past the end, from extension by reversal, and from frozen
    video.
    """
    if len(frames) < 2:
        raise UserError(
            f"{name}: a clip of {len(frames)} frame has no order to recover; use at least 2 frames"
        )
    flat = frames.flatten(1)
    for later in range(1, len(flat)):
        same = (flat[:later] == flat[later]).all(dim=1).nonzero()
        if len(same):
            raise UserError(
                f"{name}: frames {int(same[0])} and {later} of {len(flat)} are equal, so their "
                "order cannot be recovered; choose a window with motion in it (--window START END, "
                "in seconds), without repeated frames or extension by reversal"
            )
