"""Transformer blocks over space and time: joint and divided attention, with any attention kind."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.layers.attention import SoftmaxAttention
from marey.layers.directed_attention import DirectedAttention
from marey.layers.drop_path import DropPath

ATTENTION_KINDS: dict[str, type[SoftmaxAttention]] = {
    "softmax": SoftmaxAttention,
    "cosine": DirectedAttention,
}
"""What `time_attention` and `space_attention` name."""

FOLD_TOKENS = 2
"""Tokens per width from which training folds the temporal projection: the product of two weights
costs D tokens'."""


def initialise_linear(part: nn.Module) -> None:
    """Draw the weights of every linear layer of a part from a truncated normal of standard
    deviation .02 (ViT).

    Biases are set to zero.
    """
    for module in part.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class MLP(nn.Module):
    """Two linear layers with exact GELU between them (φ of DirecFormer's Eq. 11)."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, L, D) for (B, L, D)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(tokens)))))


class JointBlock(nn.Module):
    """Pre-norm transformer block over one sequence: all tokens of the clip, or of one frame.

    With cosine attention over the clip this is DirecFormer's undivided Eq. 5; its cost is linear in
    T*N.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        attention: type[SoftmaxAttention],
        qkv_bias: bool,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attention(
            dim, num_heads, qkv_bias=qkv_bias, attention_dropout=attention_dropout, dropout=dropout
        )
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, round(dim * mlp_ratio), dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Tensor,
        num_frames: int,
        return_attention: bool = False,
        visible: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return tokens (B, L, D), None, and the weights (B, heads, L, L) or None.

        Args:
            visible: bool, (B, L - 1), the patches that are attended to; None: all.
        """
        if visible is not None:
            visible = torch.cat((visible.new_ones(len(visible), 1), visible), dim=1)

        # Eq. 5: attention over the whole sequence.
        out, weights = self.attn(
            self.norm1(tokens), visible=visible, return_weights=return_attention
        )
        tokens = tokens + self.drop_path(out)

        # Eq. 11.
        return tokens + self.drop_path(self.mlp(self.norm2(tokens))), None, weights


class DividedBlock(JointBlock):
    """Attention over time, attention over space, MLP (DirecFormer, Eqs. 4-11).

    `temporal_fc` starts at zero in every block, as released: at first the block is an image
    transformer's.

    Args:
        time_attention, attention: the kinds over time and over space.
        cls_in_time: whether the class token is an extra key and value over time (Eq. 6).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        time_attention: type[SoftmaxAttention],
        attention: type[SoftmaxAttention],
        cls_in_time: bool,
        qkv_bias: bool,
        dropout: float,
        attention_dropout: float,
        drop_path: float,
    ):
        super().__init__(
            dim,
            num_heads,
            mlp_ratio,
            attention=attention,
            qkv_bias=qkv_bias,
            dropout=dropout,
            attention_dropout=attention_dropout,
            drop_path=drop_path,
        )
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.temporal_attn = time_attention(
            dim, num_heads, qkv_bias=qkv_bias, attention_dropout=attention_dropout, dropout=dropout
        )
        self.temporal_fc = nn.Linear(dim, dim)
        self.cls_in_time = cls_in_time
        self._folded: tuple[tuple[Any, ...], Tensor, Tensor] | None = None

    def forward(
        self,
        tokens: Tensor,
        num_frames: int,
        return_attention: bool = False,
        visible: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Attend over time, then over space, then apply the MLP.

        Args:
            visible: bool, (B, T*N), the patches that are attended to; None: all.

        Returns:
            Tokens (B, 1 + T*N, D); time weights (B, N, heads, T, T or 1 + T); space weights (B, T,
            heads, 1+N, 1+N); both None unless asked for.
        """
        # Eqs. 4, 6 and 7: the patches attend over time; the class token passes unchanged.
        out, time_weights = self.temporal_attn.over_time(
            self.temporal_norm1(tokens),
            num_frames,
            cls_as_key=self.cls_in_time,
            visible=visible,
            return_weights=return_attention,
        )
        patches = tokens[:, 1:] + self._project_time(out)
        tokens = torch.cat((tokens[:, :1], patches), dim=1)

        # Eqs. 8, 9 and 10: patches and class token attend within each frame.
        out, space_weights = self.attn.over_space(
            self.norm1(tokens), num_frames, visible=visible, return_weights=return_attention
        )
        tokens = tokens + self.drop_path(out)

        # Eq. 11.
        return tokens + self.drop_path(self.mlp(self.norm2(tokens))), time_weights, space_weights

    def _project_time(self, context: Tensor) -> Tensor:
        """Apply the temporal projection γ-time (Eq. 7), in one product instead of two where no
        gradient is wanted.

        With gradients only where the product of the two weights costs less than it saves, and no
        dropout is between them: temporal_fc(proj(x)) = (W₂W₁)x + (W₂b₁ + b₂) is differentiated
        through both.
        """
        first, second = self.temporal_attn.proj, self.temporal_fc
        if self.training or torch.is_grad_enabled():
            random = self.training and (
                self.temporal_attn.proj_drop.p > 0 or self.drop_path.rate > 0
            )
            # With many tokens, one product with W₂W₁ is cheaper than two, also with the cost of
            # W₂W₁ itself.
            if not random and context.shape[0] * context.shape[1] > FOLD_TOKENS * context.shape[2]:
                return F.linear(
                    context,
                    second.weight @ first.weight,
                    F.linear(first.bias, second.weight, second.bias),
                )
            projected = self.temporal_attn.proj_drop(self.temporal_attn.proj(context))
            return self.temporal_fc(self.drop_path(projected))
        weight, bias = self.folded_temporal_projection()
        return F.linear(context, weight, bias)

    @torch.no_grad()
    def folded_temporal_projection(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of `temporal_fc` after `temporal_attn.proj`, computed once per set
        of weights.

        temporal_fc(proj(x)) = W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂), exact but for rounding.
        """
        first, second = self.temporal_attn.proj, self.temporal_fc
        sources = (first.weight, first.bias, second.weight, second.bias)
        if torch.compiler.is_compiling():  # traced as constants, folded beforehand
            state = None
            if self._folded is not None:
                return self._folded[1], self._folded[2]
        else:
            state = tuple(
                (s.data_ptr(), None if s.is_inference() else s._version, s.dtype, s.device)
                for s in sources
            )
            if self._folded is not None and self._folded[0] == state:
                return self._folded[1], self._folded[2]
        wide = torch.promote_types(first.weight.dtype, torch.float32)
        weight = (second.weight.to(wide) @ first.weight.to(wide)).to(first.weight.dtype)
        bias = (second.weight.to(wide) @ first.bias.to(wide) + second.bias.to(wide)).to(
            first.weight.dtype
        )
        if state is not None:
            self._folded = (state, weight, bias)
        return weight, bias

    def train(self, mode: bool = True) -> DividedBlock:
        """Set training mode; the folded projection is forgotten."""
        self._folded = None
        super().train(mode)
        return self


def fold_temporal_projection(model: nn.Module) -> int:
    """Compute the folded temporal projections of a model now, rather than at its first prediction.

    In evaluation mode without gradients, `temporal_fc` after `temporal_attn.proj` is one matrix
    product instead of two (about 6% of TimeSformer-B). The weights of the model are not changed.

    Returns:
        The number of blocks folded.
    """
    blocks = [module for module in model.modules() if isinstance(module, DividedBlock)]
    for block in blocks:
        block.folded_temporal_projection()
    return len(blocks)
