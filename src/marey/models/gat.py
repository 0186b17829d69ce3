"""GAT, the gated adversarial transformer: audio and visual frame features in, one score per class
out.

Source: Sahu et al., section 3: positional encoding, one post-norm encoder per modality (as in
Vaswani et al.,
"Attention is all you need", section 3.1), mean over time, concatenation, a hidden layer, sigmoid
outputs. What the paper leaves open is a setting here: inner width of the feed-forward layer, hidden
width, kind of position encoding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.gated_attention import AttentionMaps, GatedMultiLevelAttention


def sinusoidal_positions(num_frames: int, dim: int) -> Tensor:
    """Return the fixed encoding of Vaswani et al., section 3.5: (T, D), sines in even, cosines in
    odd columns."""
    rate = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angle = torch.arange(num_frames)[:, None] * rate[None]
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]


def masked_mean(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """Average (B, T, D) over the real frames; a video without any gives 0."""
    if mask is None:
        return tokens.mean(1)
    total = tokens.masked_fill(~mask[..., None], 0.0).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)


class GATEncoderLayer(nn.Module):
    """Attention and feed-forward layer, each followed by residual and LayerNorm (post-norm)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        windows: Sequence[int | None],
        gating: str,
        ffn_dim: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        """Build one layer of width `dim`."""
        super().__init__()
        self.attention = GatedMultiLevelAttention(
            dim, num_heads, windows, gating, attention_dropout
        )
        self.attention_norm = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(
            nn.Linear(dim, ffn_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn_dim, dim)
        )
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, mask: Tensor | None, return_attention: bool
    ) -> tuple[Tensor, AttentionMaps | None]:
        """Return the new (B, T, D) tokens and, on request, the maps."""
        attended, maps = self.attention(tokens, mask, return_attention)
        tokens = self.attention_norm(tokens + self.dropout(attended))
        return self.ffn_norm(tokens + self.dropout(self.ffn(tokens))), maps


class GATEncoder(nn.Module):
    """Position embedding and a stack of layers for one modality; returns the mean over its real
    frames."""

    def __init__(
        self,
        feature_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        windows: Sequence[int | None],
        gating: str,
        ffn_ratio: float,
        max_frames: int,
        position: str,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        """Build an encoder of `feature_dim` values per frame with width `dim`."""
        super().__init__()
        self.projection = nn.Identity() if dim == feature_dim else nn.Linear(feature_dim, dim)
        if position == "learned":
            self.positions = nn.Parameter(torch.zeros(max_frames, dim))
            nn.init.trunc_normal_(self.positions, std=0.02)
        else:
            table = (
                sinusoidal_positions(max_frames, dim)
                if position == "sinusoidal"
                else torch.zeros(max_frames, dim)
            )
            self.register_buffer("positions", table, persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            GATEncoderLayer(
                dim, num_heads, windows, gating, round(dim * ffn_ratio), dropout, attention_dropout
            )
            for _ in range(depth)
        )

    def forward(
        self, features: Tensor, mask: Tensor | None, return_attention: bool = False
    ) -> tuple[Tensor, list[AttentionMaps]]:
        """Return (B, D) and, on request, the maps of every layer."""
        # Padded seconds are set to zero first: they may hold anything, also NaN.
        if mask is not None:
            features = features.masked_fill(~mask[..., None], 0.0)
        tokens = self.dropout(self.projection(features) + self.positions[: features.shape[1]])
        collected = []
        for layer in self.layers:
            tokens, maps = layer(tokens, mask, return_attention)
            if maps is not None:
                collected.append(maps)
        return masked_mean(tokens, mask), collected


class GAT(nn.Module):
    """Classify a video from its audio and visual features, one of each per second."""

    task: ClassVar[str] = "features"

    def __init__(
        self,
        num_classes: int,
        features: Mapping[str, int] | None = None,
        windows: Sequence[int | None] = (None, 20),
        gating: str = "flat",
        num_heads: int = 8,
        depth: int = 1,
        dim: Mapping[str, int] | None = None,
        ffn_ratio: float = 4.0,
        hidden_dim: int = 1024,
        max_frames: int = 300,
        position: str = "sinusoidal",
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
    ) -> None:
        """Build the model with fresh weights.

        Args:
            num_classes: K.
            features: feature name -> values per frame; default {"rgb": 1024, "audio": 128}. One
                alone also works.
            windows: experts of the attention, see `GatedMultiLevelAttention`; [null] is the plain
                Transformer baseline.
            gating: "flat" or "tree".
            num_heads: M, in every encoder.
            depth: encoder layers per modality (the paper: 1).
            dim: feature name -> width inside its encoder; a name left out keeps the width of its
                features (the paper).
            ffn_ratio: inner width of the feed-forward layer over D.
            hidden_dim: width of the hidden layer after concatenation.
            max_frames: longest video.
            position: "sinusoidal", "learned" or "none".
            dropout: on the embedded input, residual branches and the hidden layer.
            attention_dropout: on attention weights; above 0 the fused CPU kernel cannot be used in
                training.

        Raises:
            UserError: if an argument is out of range or unknown.
        """
        super().__init__()
        features = dict(features or {"rgb": 1024, "audio": 128})
        if position not in ("sinusoidal", "learned", "none"):
            raise UserError(f"position must be 'sinusoidal', 'learned' or 'none', got '{position}'")
        widths = {name: (dim or {}).get(name, size) for name, size in features.items()}
        self.arguments: dict[str, Any] = {
            "num_classes": num_classes,
            "features": features,
            "windows": [window or None for window in windows],
            "gating": gating,
            "num_heads": num_heads,
            "depth": depth,
            "dim": widths,
            "ffn_ratio": ffn_ratio,
            "hidden_dim": hidden_dim,
            "max_frames": max_frames,
            "position": position,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
        }
        self.features, self.max_frames = features, max_frames
        self.encoders = nn.ModuleDict(
            {
                name: GATEncoder(
                    size,
                    widths[name],
                    depth,
                    num_heads,
                    windows,
                    gating,
                    ffn_ratio,
                    max_frames,
                    position,
                    dropout,
                    attention_dropout,
                )
                for name, size in features.items()
            }
        )
        self.hidden = nn.Linear(sum(widths.values()), hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_dim, num_classes)

    def forward(
        self,
        features: Mapping[str, Tensor],
        mask: Tensor | None = None,
        return_attention: bool = False,
    ) -> dict[str, Any]:
        """Score every class of every video.

        Args:
            features: name -> float (B, T, dim), one entry for each modality the model was built
                with.
            mask: bool (B, T), True at real seconds; None if all are.
            return_attention: also return the attention maps.

        Returns:
            "logits" (B, K), one sigmoid per class; "embedding" (B, hidden_dim), after the hidden
            layer; on request "attention": name -> one `AttentionMaps` per layer.

        Raises:
            UserError: if a modality is missing, has another width, or the video is too long.
        """
        self._check(features, mask)
        encoded, attention = [], {}
        for name, encoder in self.encoders.items():
            video, attention[name] = encoder(features[name], mask, return_attention)
            encoded.append(video)

        embedding = F.relu(self.hidden(torch.cat(encoded, dim=1)))  # (B, hidden_dim)
        outputs: dict[str, Any] = {
            "logits": self.head(self.dropout(embedding)),
            "embedding": embedding,
        }
        return {**outputs, "attention": attention} if return_attention else outputs

    def _check(self, features: Mapping[str, Tensor], mask: Tensor | None) -> None:
        missing = [name for name in self.features if name not in features]
        if missing:
            raise UserError(
                f"this model reads {', '.join(self.features)}, but {', '.join(missing)} is not "
                "given; "
                f"build it with features={{{', '.join(f'{name!r}: ...' for name in features)}}}"
            )
        for name, size in self.features.items():
            shape = tuple(features[name].shape)
            if len(shape) != 3 or shape[2] != size:
                raise UserError(
                    f"feature '{name}' has shape {shape}, expected (videos, seconds, {size})"
                )
            if shape[1] > self.max_frames:
                raise UserError(
                    f"feature '{name}' has {shape[1]} seconds, but this model reads "
                    f"{self.max_frames}; cut the video or build with max_frames={shape[1]}"
                )
            if mask is not None and tuple(mask.shape) != shape[:2]:
                raise UserError(f"mask has shape {tuple(mask.shape)}, but feature '{name}' {shape}")
