"""A linear map on the embedding of a frozen encoder: what `marey teach` fits."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marey.models.encoders import create_encoder


class Probe(nn.Module):
    """Classify clips by a linear map of an encoder's embedding.

    Args:
        encoder: a name of `ENCODERS`.
        encoder_arguments: its keyword arguments.
        num_classes: K.

    Raises:
        UserError: if the encoder is unknown.
    """

    task: ClassVar[str] = "clips"

    def __init__(self, encoder: str, encoder_arguments: dict[str, Any], num_classes: int) -> None:
        super().__init__()
        self.encoder = create_encoder(encoder, **encoder_arguments).requires_grad_(False)
        self.num_frames = int(self.encoder.num_frames)  # type: ignore[arg-type]
        self.head = nn.Linear(int(self.encoder.embed_dim), num_classes)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.arguments: dict[str, Any] = {
            "encoder": encoder,
            "encoder_arguments": dict(encoder_arguments),
            "num_classes": num_classes,
        }

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Classify clips (B, T, 3, S, S), normalised as the encoder asks.

        Returns:
            "logits" (B, K); "embedding" (B, E), what they are linear in.
        """
        with torch.no_grad():
            embedding = self.encoder(clip)["embedding"]
        return {"logits": self.head(embedding), "embedding": embedding}
