"""DirecFormer's directed attention: cosines in [-1, 1] in place of a softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from marey.errors import UserError
from marey.layers.attention import SoftmaxAttention


def unit_vectors(vectors: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide each vector of the last axis by its length, floored at `eps`; a zero vector stays
    zero.

    The length is taken in at least float32, whatever the type of `vectors`.
    """
    precision = torch.promote_types(vectors.dtype, torch.float32)
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True, dtype=precision).clamp_min(eps)
    return vectors * length.reciprocal().to(vectors.dtype)


def directed_weights(query: Tensor, key: Tensor, eps: float = 1e-6) -> Tensor:
    r"""Compare every query with every key by direction, keeping the sign.

    Truong et al., "DirecFormer", CVPR 2022, Eqs. 5, 6 and 9:   a_ij = cos(q_i / sqrt(D), k_j)
    sqrt(D) cancels in the cosine and is left out; there is no softmax. We differ in one respect:
    norms are floored at `eps`, so a zero token gives 0 rather than NaN.

    Args:
        query: float, (..., Lq, head_dim). Any scale; the cosine removes it.
        key: float, (..., Lk, head_dim).
        eps: smallest norm, in the units of `query` and `key`.

    Returns:
        (..., Lq, Lk), each value in [-1, 1]; row i is query i attending to all keys. Rows do not
        sum to 1.

    Raises:
        UserError: if query and key differ in head_dim.
    """
    if query.shape[-1] != key.shape[-1]:
        raise UserError(
            f"query has head_dim {query.shape[-1]}, but key has {key.shape[-1]}; project both to "
            "one width"
        )
    return unit_vectors(query, eps) @ unit_vectors(key, eps).transpose(-2, -1)


def directed_attention(
    query: Tensor, key: Tensor, value: Tensor, eps: float = 1e-6, linear: bool | None = None
) -> Tensor:
    """Mix the values by their directed weights (Eqs. 7 and 10) without keeping the weights.

    With no softmax between them the two products are associative, (q kᵀ) v = q (kᵀ v), so the
    cheaper side is
    computed: 2 Lq Lk d multiply-adds against (Lq + Lk) d², d = head_dim. The right side never
    builds an Lq x Lk map
    and grows linearly with the number of tokens.

    Args:
        query: float, (..., Lq, head_dim).
        key, value: float, (..., Lk, head_dim).
        eps: smallest norm.
        linear: True for q (kᵀ v), False for (q kᵀ) v, None for the cheaper.

    Returns:
        (..., Lq, head_dim).
    """
    Lq, Lk, d = query.shape[-2], key.shape[-2], query.shape[-1]
    if linear is None:  # compare the multiply-adds of both sides
        linear = (Lq + Lk) * d < 2 * Lq * Lk
    query, key = unit_vectors(query, eps), unit_vectors(key, eps)
    if linear:
        return query @ (key.transpose(-2, -1) @ value)
    return (query @ key.transpose(-2, -1)) @ value


class DirectedAttention(SoftmaxAttention):
    """Multi-head self-attention by direction (DirecFormer, Eqs. 5-10); same parameters as
    `SoftmaxAttention`."""

    def weights(self, query: Tensor, key: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return cosines (..., Lq, Lk) in [-1, 1]; 0 for keys that are not visible."""
        return directed_weights(query, without_hidden(key, visible))

    def attend_without_weights(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """Return the context by the cheaper side; attention dropout needs the weights and takes the
        quadratic one."""
        if self.training and self.attention_dropout > 0:
            return (
                torch.dropout(self.weights(query, key, visible), self.attention_dropout, True)
                @ value
            )
        return directed_attention(query, without_hidden(key, visible), value)


def without_hidden(key: Tensor, visible: Tensor | None) -> Tensor:
    """Set keys (..., Lk, head_dim) to zero where `visible`, bool (..., 1, Lk), is False: their
    cosine is then 0."""
    return key if visible is None else key * visible.transpose(-2, -1)
