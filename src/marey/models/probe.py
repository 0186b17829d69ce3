"""A linear map on what a frozen encoder sees in a clip and what is measured of the video: what
`marey teach` fits."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.models.attentive import AttentivePooler
from marey.models.encoders import create_encoder


class Probe(nn.Module):
    """Classify clips by a linear map of an encoder's embedding, of vectors measured of the whole
    video (`features.video_vectors`), or of both.

    Args:
        encoder: a name of `ENCODERS`; None where the vectors decide alone.
        encoder_arguments: its keyword arguments.
        num_classes: K.
        vectors: name -> width, in the order in which they follow the embedding.
        pooler: arguments of an `AttentivePooler` of the encoder's tokens, which then takes the
            place of the encoder's embedding; None for none.
        pose_dim: as older checkpoints name {"poses": pose_dim}.

    Raises:
        UserError: if the encoder is unknown, or there is nothing to read.
    """

    task: ClassVar[str] = "clips"

    vectors: dict[str, int]
    """What it reads of the video beside clips: name -> width."""

    def __init__(
        self,
        encoder: str | None,
        encoder_arguments: dict[str, Any],
        num_classes: int,
        vectors: dict[str, int] | None = None,
        pooler: dict[str, Any] | None = None,
        pose_dim: int = 0,
    ) -> None:
        super().__init__()
        vectors = dict(vectors or ({"poses": pose_dim} if pose_dim else {}))
        if encoder is None and not vectors:
            raise UserError("a probe reads an encoder, vectors of the video or both; name one")
        self.encoder: Any = None
        width = sum(vectors.values())
        if encoder is not None:
            self.encoder = create_encoder(encoder, **encoder_arguments).requires_grad_(False)
            width += int(self.encoder.embed_dim) if pooler is None else int(pooler["dim"])
            self.num_frames = int(self.encoder.num_frames)
        self.vectors = vectors
        self.pooler = None if pooler is None else AttentivePooler(**pooler)
        self.head = nn.Linear(width, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.arguments: dict[str, Any] = {
            "encoder": encoder,
            "encoder_arguments": dict(encoder_arguments),
            "num_classes": num_classes,
            "vectors": vectors,
            "pooler": None if pooler is None else dict(pooler),
        }

    def forward(
        self, clip: Tensor, vectors: Tensor | None = None, return_attention: bool = False
    ) -> dict[str, Tensor]:
        """Classify clips.

        Args:
            clip: (B, T, 3, S, S), normalised as the encoder asks; only counted where vectors decide
                alone.
            vectors: (B, E), side by side, of each clip's video.
            return_attention: refused, because a linear map has none.

        Returns:
            "logits" (B, K); "embedding" (B, E), what they are linear in; with a pooler also
            "deciding_embedding", the frozen encoder's embedding and the vectors.

        Raises:
            UserError: if the probe reads vectors and there are none, or attention is asked for.
        """
        if return_attention:
            raise UserError("a taught probe has no attention; explain it by gradients instead")
        parts, frozen = [], []
        if self.encoder is not None:
            encoded = self.encoder(clip)
            frozen.append(encoded["embedding"])
            pooled = None if self.pooler is None else self.pooler(encoded["tokens"])
            parts.append(encoded["embedding"] if pooled is None else pooled)
        if self.vectors:
            parts.append(needed(vectors, self.vectors))
        embedding = torch.cat(parts, dim=1)
        outputs = {"logits": self.head(embedding), "embedding": embedding}
        if self.pooler is not None:
            outputs["deciding_embedding"] = torch.cat(frozen + parts[1:], dim=1)
        return outputs


def needed(vectors: Tensor | None, names: dict[str, int]) -> Tensor:
    """Return the vectors of the video that a model reads.

    Raises:
        UserError: if there are none.
    """
    if vectors is None:
        raise UserError(
            f"this model reads {' and '.join(names)} of the video, which a clip of frames alone "
            "does not carry; give it video files (marey predict, marey evaluate), or teach with "
            "--encoder frames"
        )
    return vectors
