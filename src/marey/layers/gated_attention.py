"""Gated multi-level self-attention (GMSA) over the frames of a video.

Source: Sahu et al., "Enhancing Transformer for Video Understanding Using Gated Multi-Level
Attention and Temporal
Adversarial Training", section 3.1, Eq. 1 and Fig. 2.

Letters: B videos, T frames, D width, M heads, W window length (the paper's T_N), N windows of a
video, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from marey.errors import UserError


class AttentionMaps(TypedDict):
    """The maps of one layer, before dropout; rows of padded frames are 0."""

    global_map: Tensor | None
    """(B, M, T, T), each valid row a distribution over the valid frames; None if no expert is
    global."""
    local_maps: dict[int, Tensor]
    """Window length W -> (B, M, N, W, W); the last window is padded up to W."""


def window_hierarchy(finest: int, levels: int, factor: int = 2) -> tuple[int | None, ...]:
    """Return a global expert and `levels` windows, each `factor` times the finer one (the paper's
    section 5).

    `window_hierarchy(20, 3)` is (None, 80, 40, 20), coarse to fine as `gating="tree"` reads it.
    """
    if finest < 1 or levels < 1 or factor < 2:
        raise UserError(
            f"a hierarchy needs finest >= 1, levels >= 1 and factor >= 2, got {finest}, {levels}, "
            f"{factor}"
        )
    return (None, *(finest * factor**level for level in reversed(range(levels))))


def safe_key_mask(mask: Tensor) -> Tensor:
    """Let rows without any valid key attend to all keys, so that no softmax is empty; callers set
    these rows to zero.

    Args:
        mask: bool (..., keys), True at valid keys.
    """
    return mask | ~mask.any(-1, keepdim=True)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    dropout: float = 0.0,
    return_map: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Scaled dot-product attention with an exact mask.

    Eq. 1:  A = softmax(Q K^T / sqrt(d)),  O = A V. Without `return_map` PyTorch's fused kernels
    run.

    Args:
        query, key, value: (..., M, L, d).
        mask: bool (..., L), True at real frames; None for all. Other frames neither attend nor are
            attended to.
        dropout: probability that a weight is dropped; the returned map is the one before dropout.
        return_map: also return A.

    Returns:
        (..., M, L, d) with zeros in rows that are not real (also where a whole row of the mask is
        False), and A (..., M, L, L) with zero rows there, or None.
    """
    keys = None if mask is None else safe_key_mask(mask)[..., None, None, :]  # (..., 1, 1, L)
    if return_map:
        # Eq. 1: A = softmax(Q K^T / sqrt(d)), O = A V.
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        if keys is not None:
            scores = scores.masked_fill(~keys, float("-inf"))
        weights = scores.softmax(-1)
        output = F.dropout(weights, dropout) @ value if dropout else weights @ value
        if mask is not None:
            weights = weights.masked_fill(~mask[..., None, :, None], 0.0)
    else:
        weights = None
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=keys, dropout_p=dropout
        )

    if mask is not None:
        output = output.masked_fill(~mask[..., None, :, None], 0.0)
    return output, weights


class GatedMultiLevelAttention(nn.Module):
    r"""Several experts attend with the same queries, keys and values over different ranges; a gate
    weighs them.

    Section 3.1:  O_g = A V over all frames, O_l the same inside windows of W frames;
    Y^e = O_e W^e;  R^e = O_e W_g^e;  [R^1..R^E] = softmax over experts, element by element;
    Y = sum_e R^e * Y^e.

    One expert is ordinary self-attention (SA in Table 1): its gate is 1 and is not built. Two
    global experts (S in Fig. 3) share one map and differ in W^e and W_g^e. Projections carry a
    bias, which the paper's formulas leave out.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        windows: Sequence[int | None] = (None, 20),
        gating: str = "flat",
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        """Build the layer.

        Args:
            dim: D, a multiple of `num_heads`.
            num_heads: M.
            windows: one entry an expert: a window length in frames, or None (or 0) for all frames.
            gating: "flat", one softmax over all experts (the paper); or "tree", each expert gated
                against the mix of those listed after it, for `window_hierarchy` (section 5 leaves
                the hierarchy to future work; this form is ours).
            dropout: on attention weights.
            bias: of every projection.

        Raises:
            UserError: if the sizes do not fit together or there is no expert.
        """
        super().__init__()
        if dim % num_heads:
            raise UserError(
                f"width {dim} is not a multiple of {num_heads} heads; choose num_heads among its "
                "divisors"
            )
        if not windows or any(window is not None and window < 0 for window in windows):
            raise UserError(
                f"windows must list at least one expert, each a length or null, got {list(windows)}"
            )
        if gating not in ("flat", "tree"):
            raise UserError(f"gating must be 'flat' or 'tree', got '{gating}'")
        self.num_heads, self.gating, self.dropout = num_heads, gating, dropout
        self.windows = tuple(window or None for window in windows)
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.output = nn.ModuleList(nn.Linear(dim, dim, bias=bias) for _ in self.windows)
        self.gate = nn.ModuleList(
            nn.Linear(dim, dim, bias=bias) for _ in self.windows if len(self.windows) > 1
        )

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, AttentionMaps | None]:
        """Mix the experts' outputs for every frame.

        Args:
            tokens: float (B, T, D).
            mask: bool (B, T), True at real frames; the values of the others have no effect.
            return_attention: also return the maps (slower: the fused kernels do not give them).

        Returns:
            (B, T, D), zeros in padded frames, and the maps or None.
        """
        if mask is not None:
            tokens = tokens.masked_fill(~mask[..., None], 0.0)
        qkv = self.qkv(tokens)
        maps: AttentionMaps = {"global_map": None, "local_maps": {}}
        attended: dict[int | None, Tensor] = {}
        for window in dict.fromkeys(self.windows):  # experts of one window share one map
            if window is None:
                attended[None], maps["global_map"] = self._attend(qkv, mask, return_attention)
            else:
                attended[window], local = self._attend_locally(qkv, mask, window, return_attention)
                if local is not None:
                    maps["local_maps"][window] = local

        mixed = self._mix([attended[window] for window in self.windows])
        if mask is not None:
            mixed = mixed.masked_fill(~mask[..., None], 0.0)
        return mixed, maps if return_attention else None

    def _attend(
        self, qkv: Tensor, mask: Tensor | None, return_map: bool
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = rearrange(
            qkv, "b t (three m d) -> three b m t d", three=3, m=self.num_heads
        )
        output, weights = attend(
            query,
            key,
            value,
            mask,
            dropout=self.dropout if self.training else 0.0,
            return_map=return_map,
        )
        return rearrange(output, "b m t d -> b t (m d)"), weights

    def _attend_locally(
        self, qkv: Tensor, mask: Tensor | None, window: int, return_map: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend inside windows, which become rows of the batch because the fused kernels take four
        axes."""
        B, T, _ = qkv.shape
        padding = -T % window
        if mask is None and padding:
            mask = torch.ones(B, T, dtype=torch.bool, device=qkv.device)
        windows = None if mask is None else F.pad(mask, (0, padding)).view(-1, window)  # (B*N, W)
        output, local = self._attend(
            F.pad(qkv, (0, 0, 0, padding)).view(-1, window, qkv.shape[2]), windows, return_map
        )
        output = output.reshape(B, T + padding, -1)[:, :T]
        return output, None if local is None else rearrange(local, "(b n) m w v -> b m n w v", b=B)

    def _mix(self, attended: list[Tensor]) -> Tensor:
        """Weigh the experts' outputs, each (B, T, D), by their gates."""
        values = [
            project(expert) for project, expert in zip(self.output, attended, strict=True)
        ]  # Y^e
        if len(values) == 1:
            return values[0]
        relevance = [gate(expert) for gate, expert in zip(self.gate, attended, strict=True)]  # R^e
        if self.gating == "flat":
            # Section 3.1: softmax over experts, element by element; Y = sum_e R^e * Y^e.
            return (torch.stack(relevance).softmax(0) * torch.stack(values)).sum(0)

        # From the finest window up: each coarser expert is gated against the mix of all finer ones.
        mixed, score = values[-1], relevance[-1]
        for value, coarser in zip(values[-2::-1], relevance[-2::-1], strict=True):
            share = torch.sigmoid(coarser - score)  # softmax over two
            mixed, score = (
                share * value + (1 - share) * mixed,
                share * coarser + (1 - share) * score,
            )
        return mixed


def global_profile(global_map: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average a map over heads and rows: how much attention each frame receives (section 4.3.1,
    Figs. 1 and 4).

    Args:
        global_map: (B, M, T, T).
        mask: bool (B, T); rows of padded frames do not count.

    Returns:
        (B, T), each row sums to 1.
    """
    rows = global_map.mean(1)
    count = rows.shape[1] if mask is None else mask.sum(1, keepdim=True).clamp(min=1)
    return rows.sum(1) / count


def local_profile(local_map: Tensor, num_frames: int, mask: Tensor | None = None) -> Tensor:
    """Average every window's map over heads and rows and concatenate the windows (Figs. 1 and 4).

    Args:
        local_map: (B, M, N, W, W).
        num_frames: T.
        mask: bool (B, T).

    Returns:
        (B, T); each window with a real frame sums to 1.
    """
    B, _, N, W, _ = local_map.shape
    if mask is None:
        mask = torch.ones(B, num_frames, dtype=torch.bool, device=local_map.device)
    real = F.pad(mask, (0, N * W - num_frames)).view(B, N, W)
    columns = local_map.mean(1).sum(2) / real.sum(2, keepdim=True).clamp(min=1)
    return columns.flatten(1)[:, :num_frames]
