"""The losses of DirecFormer: order cross-entropy, guided loss on the temporal attention, their total.

`o` (order) is the gather that permuted a clip, `permuted = frames[o]`: `o[t]` is the original index of the frame at
position t. B clips, T frames, N patches of the grid, P permutations of the set, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError, unknown_name

SIGNS = ("paper", "released")


def order_signs(order: Tensor, kind: str = "paper") -> Tensor:
    r"""Return for every pair of frames which came first.

    Truong et al., "DirecFormer", CVPR 2022, Eq. 13: sigma(o_t, o_t') = 1 if o_t < o_t', otherwise -1; so the
    diagonal is -1 and the rest antisymmetric. The released code has another matrix, the option "released": the pairs
    (t, t') and (t', t) are both -1 where o_t > o_t' for t < t', else +1; symmetric, with +1 on the diagonal.

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


def guided_loss(attention_time: Sequence[Tensor], order: Tensor, *, signs: str = "paper",
                mask_diagonal: bool = False) -> Tensor:
    r"""Guide the temporal attention of a permuted clip towards the true direction of time.

    Truong et al., "DirecFormer", CVPR 2022, Eq. 13:

        L_self = 1 / (L N T^2)  sum_l sum_s sum_t sum_t'  (1 - a_(s,t),(s,t')) sigma(o_t, o_t')

    averaged over blocks, patches, t and t' = 1..T (never the CLS column), and over heads and clips, which the paper
    leaves open. `order` must belong to the clip the attention was computed on: on an ordered clip the time embedding
    alone would solve it. With cosine attention the value lies in [-2, 2], and it may be negative, as printed in the
    paper; there is no absolute value and no clamp. The diagonal adds a(t, t) - 1, because sigma(t, t) = -1.

    Args:
        attention_time: one tensor per block, (B, N, heads, T, T) or, with the CLS key first, (B, N, heads, T, 1 + T).
        order: int64, (B, T).
        signs: the matrix of `order_signs`.
        mask_diagonal: leave t = t' out of sum and count (not in the paper).

    Returns:
        Scalar, in the dtype of the attention but at least float32.

    Raises:
        UserError: if there is no attention, or its T is not that of `order`.
    """
    if len(attention_time) == 0:
        raise UserError("the guided loss needs temporal attention, got none; call the model with return_attention=True")
    T = order.shape[-1]
    sigma = order_signs(order, signs)[:, None, None]                   # (B, 1, 1, T, T)
    if mask_diagonal:
        sigma = sigma * (1 - torch.eye(T, device=order.device))

    # Eq. 13: the mean of (1 - a) sigma over blocks, patches, t and t'.
    entries = T * (T - 1) if mask_diagonal else T * T
    total = torch.zeros((), device=order.device)
    for weights in attention_time:
        if weights.ndim != 5 or weights.shape[-2] != T or weights.shape[-1] not in (T, T + 1):
            raise UserError(f"temporal attention of shape {tuple(weights.shape)} does not fit permutations of {T} "
                            f"frames; expected (B, N, heads, {T}, {T}) or (B, N, heads, {T}, {T + 1})")
        frames_only = weights[..., -T:].float()                        # without the CLS column
        mean = frames_only.mean(dim=(1, 2), keepdim=True)              # over patches and heads: the loss is linear in a
        total = total + ((1 - mean) * sigma).sum() / (len(order) * entries)
    return total / len(attention_time)


def position_shortcut(permutations: Tensor) -> float:
    """Return how far the guided loss can decrease on a permutation set without looking at the frames.

    If in most rows the frame at position t comes before that at position t', attention that depends on the positions
    alone (by the time embedding) is right without any content. The best such attention is the sign of the mean of
    sigma; the loss, without the diagonal, then decreases by the mean of its absolute value.

    All T! permutations give 0, a set of one row 1; 1,000 of 8!
    give 0.28 by the paper's rule "closest", 0.02 by "farthest".

    Args:
        permutations: int64, (P, T), T of 2 or more.
    """
    T = permutations.shape[1]
    mean = order_signs(permutations).mean(dim=0)
    return float(mean[~torch.eye(T, dtype=torch.bool)].abs().mean())


def order_loss(order_logits: Tensor, permutation_index: Tensor) -> Tensor:
    """Return the cross-entropy of the permutation's index: L_ord of Eq. 14, on the permuted clip (Eq. 2).

    Args:
        order_logits: float, (B, P).
        permutation_index: int64, (B,), which row of the set permuted the clip.

    Raises:
        UserError: if an index is beyond the head's P.
    """
    if int(permutation_index.max()) >= order_logits.shape[1]:
        raise UserError(f"permutation index {int(permutation_index.max())} does not fit an order head of "
                        f"{order_logits.shape[1]} classes; build the model with num_orders = rows of the set")
    return F.cross_entropy(order_logits, permutation_index)


def total_loss(terms: dict[str, Tensor], weights: dict[str, float] | None = None) -> Tensor:
    r"""Weigh and sum the terms.

    Truong et al., "DirecFormer", CVPR 2022, Eq. 14:
    L = lambda_cls L_cls + lambda_ord L_ord + lambda_self L_self. The text has lost the paper's values; here each is 1.

    Raises:
        UserError: if a weight names no term.
    """
    weights = weights or {}
    for name in weights:
        if name not in terms:
            raise unknown_name("loss term", name, terms)
    return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()


class DirecFormerLoss(nn.Module):
    """The three terms of Eq. 14, unweighted: class on the ordered clip, order and guided loss on the permuted one.

    Args:
        order: include the order cross-entropy.
        guided: include the guided loss on the permuted pass.
        guided_on_ordered: include it on the ordered pass too; never alone, for the time embedding would solve it.
        signs, mask_diagonal: see `guided_loss`.
        label_smoothing: of the class cross-entropy.

    Raises:
        UserError: if `guided_on_ordered` comes without `guided`.
    """

    def __init__(self, *, order: bool = True, guided: bool = True, guided_on_ordered: bool = False,
                 signs: str = "paper", mask_diagonal: bool = False, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if guided_on_ordered and not guided:
            raise UserError("guided_on_ordered=True without guided=True would train on the ordered pass alone, where "
                            "the time embedding solves the task; set guided=True as well")
        if signs not in SIGNS:
            raise unknown_name("sign matrix", signs, SIGNS)
        self.order, self.guided, self.guided_on_ordered = order, guided, guided_on_ordered
        self.signs, self.mask_diagonal, self.label_smoothing = signs, mask_diagonal, label_smoothing

    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return "class" and, as chosen, "order" and "guided".

        Args:
            outputs: of ONE forward over the ordered clips followed by the permuted ones, 2B rows: "logits" (2B, K),
                "order_logits" (2B, P), "attention_time" list of (2B, N, heads, T, T or 1 + T). Both heads take part in
                the graph whatever is chosen, so that training in several processes finds every gradient.
            targets: "label" (B,), "permutation_index" (B,), "order" (B, T).
        """
        B = len(targets["label"])
        logits, order_logits = outputs["logits"], outputs.get("order_logits")
        terms = {"class": F.cross_entropy(logits[:B], targets["label"], label_smoothing=self.label_smoothing)}
        if order_logits is not None:
            terms["class"] = terms["class"] + 0.0 * (logits[B:].sum() + order_logits.sum())
        if self.order:
            if order_logits is None:
                raise UserError("the order loss needs a model with an order head, this one has none; "
                                "use DirecFormer with num_orders = rows of the permutation set")
            terms["order"] = order_loss(order_logits[B:], targets["permutation_index"])
        if self.guided:
            terms["guided"] = self.guide(outputs["attention_time"], targets["order"])
        return terms

    def guide(self, attention_time: Sequence[Tensor], order: Tensor) -> Tensor:
        """Return the guided loss of the permuted half, averaged with that of the ordered half if so chosen."""
        B, T = order.shape
        options: dict[str, Any] = {"signs": self.signs, "mask_diagonal": self.mask_diagonal}
        permuted = guided_loss([weights[B:] for weights in attention_time], order, **options)
        if not self.guided_on_ordered:
            return permuted
        ascending = torch.arange(T, device=order.device).expand(B, -1)
        return (permuted + guided_loss([weights[:B] for weights in attention_time], ascending, **options)) / 2
