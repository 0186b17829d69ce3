"""The Tx unit and head of the Video Action Transformer: a person's query attends to the whole clip.

Girdhar et al., "Video Action Transformer Network", CVPR 2019. P persons of all clips, D width of a
query, t h w the feature map, L = t*h*w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from marey.layers.location_embedding import LocationEmbedding
from marey.layers.roi import RoiOperator, pool_boxes


class QueryPreprocessor(nn.Module):
    """Turn a person's 7 x 7 RoI feature into the first query (Sec. 3.2, QPr).

    Args:
        in_channels: channels of the RoI feature, D_in.
        dim: D.
        kind: "highres" reduces channels by a 1 x 1 convolution, lays the 49 cells side by side and
            projects them to D; "lowres" averages over the cells first.
        reduced: channels after the 1 x 1 convolution (not stated in the paper; 384 fits its
            parameter count).
    """

    def __init__(self, in_channels: int, dim: int, kind: str, reduced: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "highres":
            self.reduce = nn.Conv2d(in_channels, reduced, 1)
            self.project = nn.Linear(reduced * 49, dim)
        else:
            self.project = nn.Linear(in_channels, dim)

    def forward(self, roi: Tensor) -> Tensor:
        """(P, D_in, 7, 7) -> (P, D)."""
        if self.kind == "highres":
            return self.project(self.reduce(roi).flatten(1))
        return self.project(roi.mean(dim=(2, 3)))


class TxUnit(nn.Module):
    """One Action Transformer unit: a person's query attends to the whole clip (Sec. 3.2).

        a_xyt = Q K_xyt^T / sqrt(D),  A = sum_xyt Softmax(a)_xyt V_xyt
        Q'  = LayerNorm(Q + Dropout(A)),  Q'' = LayerNorm(Q' + Dropout(FFN(Q')))

    Args:
        memory_channels: channels of the feature map with its location embedding.
        dim: D; the inner width of the FFN is `ffn` (not stated in the paper; 512 fits its parameter
            count).
    """

    def __init__(self, memory_channels: int, dim: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.key = nn.Linear(memory_channels, dim)
        self.value = nn.Linear(memory_channels, dim)
        self.norm_attention = nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), nn.Linear(ffn, dim))
        self.norm_ffn = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, query: Tensor, memory: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Update every person's query.

        Args:
            query: (P, D), the persons of all clips one after the other, `counts` of each clip.
            memory: (B, L, memory_channels), L = t * h * w.

        Returns:
            Updated query (P, D) and attention (P, L), rows summing to 1.
        """
        keys, values = self.key(memory), self.value(memory)
        weights, gathered = [], []
        # a = softmax(Q K^T / sqrt(D)), A = a V: the persons of a clip attend to that clip only.
        for own_query, key, value in zip(query.split(list(counts)), keys, values, strict=True):
            weight = (own_query @ key.T / math.sqrt(own_query.shape[-1])).softmax(
                dim=-1
            )  # (P_b, L)
            weights.append(weight)
            gathered.append(weight @ value)

        # Q' = LayerNorm(Q + Dropout(A)), Q'' = LayerNorm(Q' + Dropout(FFN(Q'))).
        query = self.norm_attention(query + self.dropout(torch.cat(gathered)))
        return self.norm_ffn(query + self.dropout(self.ffn(query))), torch.cat(weights)


class TxHead(nn.Module):
    """A stack of Tx units: each head of each layer is a whole unit with its own query, key, value
    and FFN.

    The outputs of a layer's heads are concatenated and are the next layer's query (Sec. 3.2).

    Args:
        in_channels: channels of the trunk's map.
        dim, num_heads, num_layers: 128, 2, 3 in the paper.
        query: "highres" or "lowres".
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 128,
        num_heads: int = 2,
        num_layers: int = 3,
        ffn: int = 512,
        query: str = "highres",
        query_channels: int = 384,
        location_channels: int = 64,
        time_half_steps: float = 8.0,
        dropout: float = 0.3,
        roi_operator: RoiOperator = "pool",
    ) -> None:
        super().__init__()
        self.roi_operator: RoiOperator = roi_operator
        self.location = LocationEmbedding(location_channels, time_half_steps)
        channels = in_channels + location_channels
        self.queries = nn.ModuleList(
            nn.ModuleList(
                QueryPreprocessor(channels, dim, query, query_channels)
                if layer == 0
                else nn.Linear(num_heads * dim, dim)
                for _ in range(num_heads)
            )
            for layer in range(num_layers)
        )
        self.units = nn.ModuleList(
            nn.ModuleList(TxUnit(channels, dim, ffn, dropout) for _ in range(num_heads))
            for _ in range(num_layers)
        )
        self.out_channels = num_heads * dim

    def forward(
        self, features: Tensor, boxes_xyxy_norm: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Describe each box from its whole clip.

        Returns:
            (P, num_heads * D), and per layer the attention (P, num_heads, t, h, w).
        """
        located = self.location(features)
        t, h, w = located.shape[2:]
        memory = rearrange(located, "b d t h w -> b (t h w) d")
        counts = [len(boxes) for boxes in boxes_xyxy_norm]

        # The first query is the RoI feature of the central frame; the later ones are the heads'
        # outputs.
        state = pool_boxes(located[:, :, t // 2], boxes_xyxy_norm, self.roi_operator)
        attention = []
        for queries, units in zip(self.queries, self.units, strict=True):
            updated = [
                unit(query(state), memory, counts)
                for query, unit in zip(queries, units, strict=True)
            ]
            state = torch.cat([query for query, _ in updated], dim=-1)
            attention.append(
                rearrange(
                    torch.stack([weights for _, weights in updated], dim=1),
                    "p n (t h w) -> p n t h w",
                    t=t,
                    h=h,
                    w=w,
                )
            )
        return state, attention

    def key_embeddings(self, features: Tensor) -> list[list[Tensor]]:
        """Return every unit's keys [layer][head], each (B, t, h, w, D): the embeddings that Fig. 4
        shows as colours."""
        located = rearrange(self.location(features), "b d t h w -> b t h w d")
        return [[unit.key(located) for unit in units] for units in self.units]
