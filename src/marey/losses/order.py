"""The losses of DirecFormer: order cross-entropy, guided loss on the temporal attention, their
total.

`o` (order) is the gather that permuted a clip, `permuted = frames[o]`: `o[t]` is the original index
of the frame at position t. B clips, T frames, N patches of the grid, P permutations of the set, K
classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError, unknown_name

SIGNS = ("paper", "released")


def order_signs(order: Tensor, kind: str = "paper") -> Tensor:
    r"""Return for every pair of frames which came first.

    Truong et al., "DirecFormer", CVPR 2022, Eq. 13: sigma(o_t, o_t') = 1 if o_t < o_t', otherwise
    -1; so the diagonal is -1 and the rest antisymmetric. The released code has another matrix, the
    option "released": the pairs (t, t') and (t', t) are both -1 where o_t > o_t' for t < t', else
    +1; symmetric, with +1 on the diagonal.

    Args:
        order: int64, (..., T), permutations of 0..T-1.
        kind: "paper" or "released".

    Returns:
        float32, (..., T, T), entries +1 and -1.

    Raises:
        UserError: if the kind is unknown.
    """
    if kind not in SIGNS:
        raise unknown_name("sign matrix", kind, SIGNS)
    earlier = order[..., :, None] < order[..., None, :]
    signs = torch.where(earlier, 1.0, -1.0)
    if kind == "paper":
        return signs
    # Released code: both entries of a pair have the sign of the upper triangle, the diagonal is +1.
    upper = signs.triu(diagonal=1)
    return upper + upper.transpose(-1, -2) + torch.eye(order.shape[-1], device=order.device)


def guided_loss(
    attention_time: Sequence[Tensor],
    order: Tensor,
    *,
    signs: str = "paper",
    mask_diagonal: bool = False,
) -> Tensor:
    r"""Guide the temporal attention of a permuted clip towards the true direction of time.

    Truong et al., "DirecFormer", CVPR 2022, Eq. 13:

        L_self = 1 / (L N T^2)  sum_l sum_s sum_t sum_t'  (1 - a_(s,t),(s,t')) sigma(o_t, o_t')

    averaged over blocks, patches, t and t' = 1..T (never the CLS column), and over heads and clips,
    which the paper leaves open. `order` must belong to the clip the attention was computed on: on
    an ordered clip the time embedding alone would solve it. With cosine attention the value lies in
    [-2, 2], and it may be negative, as printed in the paper; there is no absolute value and no
    clamp. The diagonal adds a(t, t) - 1, because sigma(t, t) = -1.

    Args:
        attention_time: one tensor per block, (B, N, heads, T, T) or, with the CLS key first, (B, N,
            heads, T, 1 + T).
        order: int64, (B, T).
        signs: the matrix of `order_signs`.
        mask_diagonal: leave t = t' out of sum and count (not in the paper).

    Returns:
        Scalar, in the dtype of the attention but at least float32.

    Raises:
        UserError: if there is no attention, or its T is not that of `order`.
    """
    T = order.shape[-1]
    sigma = order_signs(order, signs)[:, None, None]  # (B, 1, 1, T, T)
    if mask_diagonal:
        sigma = sigma * (1 - torch.eye(T, device=order.device))

    # Eq. 13: the mean of (1 - a) sigma over blocks, patches, t and t'.
    entries = T * (T - 1) if mask_diagonal else T * T
    total = torch.zeros((), device=order.device)
    for frames_only in frames_of_attention(attention_time, T):
        mean = frames_only.mean(
            dim=(1, 2), keepdim=True
        )  # over patches and heads: the loss is linear in a
        total = total + ((1 - mean) * sigma).sum() / (len(order) * entries)
    return total / len(attention_time)


def graded_order(order: Tensor) -> Tensor:
    """Return for every pair of frames how near and in which direction they follow each other.

    Not in the paper: with d = o_t' - o_t, sign(d) (1 - (|d| - 1) / (T - 1)), so 1 for the next
    frame, falling to 1 / (T - 1) for the last, negative backwards, 0 on the diagonal. Eq. 13 asks
    +1 of every later frame alike; the heaviest path then has no reason to visit neighbours, while
    here the true order is the only heaviest path.

    Args:
        order: int64, (..., T), permutations of 0..T-1, T of 2 or more.

    Returns:
        float32, (..., T, T), antisymmetric.
    """
    T = order.shape[-1]
    ahead = (order[..., None, :] - order[..., :, None]).float()
    return ahead.sign() * (1 - (ahead.abs() - 1) / (T - 1))


def graded_loss(attention_time: Sequence[Tensor], order: Tensor) -> Tensor:
    """Return the mean squared difference of the temporal attention of a permuted clip from
    `graded_order`, without the diagonal: in place of Eq. 13, whose linear form grading would not
    change (its least is a = sign(target) wherever the target is not 0).

    Args:
        attention_time, order: as of `guided_loss`.

    Returns:
        Scalar, at least float32, 0 or more; .571 for attention that is 0 everywhere (T = 8).

    Raises:
        UserError: as `guided_loss`.
    """
    T = order.shape[-1]
    target = graded_order(order)
    off_diagonal = 1 - torch.eye(T, device=order.device)
    total = torch.zeros((), device=order.device)
    for weights in frames_of_attention(attention_time, T):
        mean = weights.mean(dim=(1, 2))  # over patches and heads, as the order is read
        squared = (mean - target).square() * off_diagonal
        total = total + squared.sum() / (len(order) * T * (T - 1))
    return total / len(attention_time)


def frames_of_attention(attention_time: Sequence[Tensor], num_frames: int) -> list[Tensor]:
    """Return the attention of every block among the frames alone, float (B, N, heads, T, T),
    without the CLS column.

    Raises:
        UserError: if there is no attention, or it is over another number of frames.
    """
    T = num_frames
    if len(attention_time) == 0:
        raise UserError(
            "the guided loss needs temporal attention, got none; call the model with "
            "return_attention=True"
        )
    for weights in attention_time:
        if weights.ndim != 5 or weights.shape[-2] != T or weights.shape[-1] not in (T, T + 1):
            raise UserError(
                f"temporal attention of shape {tuple(weights.shape)} does not fit permutations of "
                f"{T} frames; expected (B, N, heads, {T}, {T}) or (B, N, heads, {T}, {T + 1})"
            )
    return [weights[..., -T:].float() for weights in attention_time]


def position_shortcut(permutations: Tensor) -> float:
    """Return how far the guided loss can decrease on a permutation set without looking at the
    frames.

    If in most rows the frame at position t comes before that at position t', attention that depends
    on the positions alone (by the time embedding) is right without any content. The best such
    attention is the sign of the mean of sigma; the loss, without the diagonal, then decreases by
    the mean of its absolute value.

    All T! permutations give 0, a set of one row 1; 1,000 of 8!
    give 0.28 by the paper's rule "closest", 0.02 by "farthest".

    Args:
        permutations: int64, (P, T), T of 2 or more.
    """
    T = permutations.shape[1]
    mean = order_signs(permutations).mean(dim=0)
    return float(mean[~torch.eye(T, dtype=torch.bool)].abs().mean())


def order_loss(order_logits: Tensor, permutation_index: Tensor) -> Tensor:
    """Return the cross-entropy of the permutation's index: L_ord of Eq. 14, on the permuted clip
    (Eq. 2).

    Args:
        order_logits: float, (B, P).
        permutation_index: int64, (B,), which row of the set permuted the clip.

    Raises:
        UserError: if an index is beyond the head's P.
    """
    if int(permutation_index.max()) >= order_logits.shape[1]:
        raise UserError(
            f"permutation index {int(permutation_index.max())} does not fit an order head of "
            f"{order_logits.shape[1]} classes; build the model with num_orders = rows of the set"
        )
    return F.cross_entropy(order_logits, permutation_index)
