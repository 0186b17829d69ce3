"""Multi-head softmax attention over one sequence, over time and over space; fused unless the
weights are returned.

B clips, T frames, N patches per frame, L tokens of a sequence, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError


def softmax_weights(query: Tensor, key: Tensor, visible: Tensor | None = None) -> Tensor:
    """Compare every query with every key by scaled dot product, normalised over the keys.

    Vaswani et al., "Attention Is All You Need", 2017, Eq. 1: softmax(q kᵀ / sqrt(head_dim)).

    Args:
        query: float, (..., Lq, head_dim).
        key: float, (..., Lk, head_dim).
        visible: bool, broadcastable to (..., Lq, Lk), the keys that count, at least one in each
            row; None: all.

    Returns:
        (..., Lq, Lk), each row in [0, 1] and summing to 1.
    """
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(dim=-1)


def some_key(visible: Tensor) -> Tensor:
    """Return the keys that count, bool (..., Lk); all of them where none is visible, so that a
    softmax has a value."""
    return visible | ~visible.any(dim=-1, keepdim=True)


class SoftmaxAttention(nn.Module):
    """Multi-head self-attention with fused q, k, v projection, named as in ViT (`qkv`, `proj`).

    Args:
        dim: token width D.
        num_heads: heads; D must be a multiple.
        qkv_bias: whether the q, k, v projection has a bias.
        attention_dropout: dropout on the weights.
        dropout: dropout after the output projection.

    Raises:
        UserError: if `dim` is no multiple of `num_heads`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if dim % num_heads:
            raise UserError(
                f"embed_dim {dim} is no multiple of num_heads {num_heads}; choose num_heads among "
                f"the divisors of {dim}"
            )
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attention_dropout = attention_dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def weights(self, query: Tensor, key: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return the attention weights (..., Lq, Lk) of queries (..., Lq, head_dim) over keys (...,
        Lk, head_dim)."""
        return softmax_weights(query, key, visible)

    def attend_without_weights(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """Return the context (..., Lq, head_dim) by the fastest kernel: fused, but not for short
        bf16 sequences."""
        dropout = self.attention_dropout if self.training else 0.0
        short_bf16 = (
            query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[-2] <= 256
        )
        # Measured: on short bf16 sequences the fused CPU kernel takes 2.5 to 3.5 times as long.
        if short_bf16 and not dropout:
            return softmax_weights(query, key, visible) @ value
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, dropout_p=dropout
        )

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        visible: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Mix the values by the attention of the queries.

        Args:
            query: float, (B, heads, Lq, head_dim).
            key, value: float, (B, heads, Lk, head_dim).
            visible: bool, (B, heads or 1, 1, Lk), the keys that count; None: all.
            return_weights: also return the weights, before dropout and differentiable.

        Returns:
            Context (B, heads, Lq, head_dim), and the weights (B, heads, Lq, Lk) or None.
        """
        if not return_weights:
            return self.attend_without_weights(query, key, value, visible), None
        weights = self.weights(query, key, visible)
        return F.dropout(weights, self.attention_dropout, self.training) @ value, weights

    def project_separately(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v, each (B, L, D) and contiguous, so that any split of L needs no
        copy."""
        biases = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
        query, key, value = (
            F.linear(tokens, w, b) for w, b in zip(self.qkv.weight.chunk(3), biases, strict=True)
        )
        return query, key, value

    def forward(
        self, tokens: Tensor, *, visible: Tensor | None = None, return_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Let every token attend to all tokens of its sequence.

        Args:
            tokens: float, (B, L, D).
            visible: bool, (B, L), the tokens that are attended to; None: all.
            return_weights: also return (B, heads, L, L).
        """
        B, L, D = tokens.shape
        qkv = self.qkv(tokens).view(B, L, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, L, head_dim)

        mask = None if visible is None else some_key(visible)[:, None, None]  # (B, 1, 1, L)
        context, weights = self.attend(
            query, key, value, visible=mask, return_weights=return_weights
        )
        context = context.transpose(1, 2).reshape(B, L, D)  # heads side by side again
        return self.proj_drop(self.proj(context)), weights

    def over_time(
        self,
        tokens: Tensor,
        num_frames: int,
        *,
        cls_as_key: bool,
        visible: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every patch attend to the patches at its own position in all frames (TimeSformer;
        DirecFormer, Eqs. 6-7).

        The class token is no query here; with `cls_as_key` it is one more key and value of every
        sequence. Heads and positions share one axis, so no token is moved in memory.

        Args:
            tokens: float, (B, 1 + T*N, D), class token first, then frame-major patches.
            num_frames: T.
            cls_as_key: whether patches attend to the class token too, as in Eq. 6.
            visible: bool, (B, T*N), the patches that are attended to; None: all.
            return_weights: also return the weights.

        Returns:
            The mixed values of the patches (B, T*N, D), before `proj`; weights (B, N, heads, T, T),
            or (B, N, heads, T, 1 + T) with the class token's column first.
        """
        B, L, D = tokens.shape
        T, N = num_frames, (L - 1) // num_frames

        def by_position(patches: Tensor) -> Tensor:
            """(B, T*N, D) -> (B, N*heads, T, head_dim)"""
            return patches.reshape(B, -1, N * self.num_heads, self.head_dim).transpose(1, 2)

        query, key, value = self.project_separately(tokens)
        query_time, key_time, value_time = (
            by_position(part[:, 1:]) for part in (query, key, value)
        )
        if cls_as_key:
            # Eq. 6: k_(0,0), the class token's key, stands before the keys of the T frames.
            key_time = torch.cat((by_position(key[:, :1].expand(-1, N, -1)), key_time), dim=2)
            value_time = torch.cat((by_position(value[:, :1].expand(-1, N, -1)), value_time), dim=2)

        mask = None
        if visible is not None:
            mask = visible.view(B, T, N).transpose(1, 2)  # (B, N, T)
            if cls_as_key:
                mask = torch.cat((mask.new_ones(B, N, 1), mask), dim=2)
            mask = some_key(mask).repeat_interleave(self.num_heads, dim=1)[
                :, :, None
            ]  # (B, N*heads, 1, Lk)

        # Eq. 7, without its projection: each patch is the sum of the values, weighted by Eq. 6.
        context, weights = self.attend(
            query_time, key_time, value_time, visible=mask, return_weights=return_weights
        )
        if weights is not None:
            weights = weights.view(B, N, self.num_heads, T, -1)
        return context.transpose(1, 2).reshape(B, T * N, D), weights

    def over_space(
        self,
        tokens: Tensor,
        num_frames: int,
        *,
        visible: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every patch attend to its own frame and the class token (TimeSformer; DirecFormer,
        Eqs. 9-10).

        The class token is replicated into every frame and its outputs are averaged over the frames.
        Eq. 9 of the paper runs over t'; Eq. 10 shows that s' is meant.

        Args:
            tokens: float, (B, 1 + T*N, D), class token first, then frame-major patches.
            num_frames: T.
            visible: bool, (B, T*N), the patches that are attended to; None: all.
            return_weights: also return the weights.

        Returns:
            Tokens (B, 1 + T*N, D) after `proj`; weights (B, T, heads, 1 + N, 1 + N).
        """
        B, L, D = tokens.shape
        T, N = num_frames, (L - 1) // num_frames
        cls_per_frame = tokens[:, :1].unsqueeze(1).expand(B, T, 1, D)
        frames = torch.cat(
            (cls_per_frame, tokens[:, 1:].reshape(B, T, N, D)), dim=2
        )  # (B, T, 1 + N, D)

        # Eqs. 9 and 10: one sequence per frame, so the batch axis is B*T.
        mask = None
        if visible is not None:
            mask = torch.cat((visible.new_ones(B * T, 1), visible.view(B * T, N)), dim=1)
        out, weights = self(
            frames.view(B * T, 1 + N, D), visible=mask, return_weights=return_weights
        )
        out = out.view(B, T, 1 + N, D)
        if weights is not None:
            weights = weights.view(B, T, self.num_heads, 1 + N, 1 + N)
        return torch.cat(
            (out[:, :, 0].mean(1, keepdim=True), out[:, :, 1:].reshape(B, T * N, D)), dim=1
        ), weights
