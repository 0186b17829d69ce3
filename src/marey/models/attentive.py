"""Attentive pooling: one learned query looks at all tokens of a frozen encoder.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video"
(V-JEPA), 2024, Section 4.1: a cross-attention layer with a learned query, a residual MLP with
GELU, then a linear classifier. We add no dropout.

Legend: B clips, L tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

HEAD_DIM = 64
"""Wanted width of a head; the number of heads is the largest that divides D with at least this."""


class AttentivePooler(nn.Module):
    """Pool tokens to one vector.

    Args:
        dim: D.
        blocks: transformer blocks over the tokens before the query; with any, learned positions
            are added to the tokens: a small transformer.
        num_tokens: L, needed for positions.
        mlp_ratio: width of the hidden layer, as a multiple of D.
    """

    def __init__(
        self, dim: int, blocks: int = 0, num_tokens: int = 0, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        heads = next(count for count in range(max(1, dim // HEAD_DIM), 0, -1) if dim % count == 0)
        hidden = round(dim * mlp_ratio)
        self.arguments: dict[str, Any] = {
            "dim": dim,
            "blocks": blocks,
            "num_tokens": num_tokens,
            "mlp_ratio": mlp_ratio,
        }
        self.norm_tokens = nn.LayerNorm(dim)
        self.positions = nn.Parameter(torch.zeros(1, num_tokens, dim)) if blocks else None
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(blocks)
        )
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, D) of tokens (B, L, D)."""
        tokens = self.norm_tokens(tokens)
        if self.positions is not None:
            tokens = tokens + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        query = self.query.expand(len(tokens), -1, -1)
        pooled = query + self.attention(query, tokens, tokens, need_weights=False)[0]
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]
