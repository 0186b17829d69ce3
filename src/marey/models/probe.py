"""A linear map on what a frozen encoder and people's poses say of a video: what `marey teach`
fits."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marey.errors import UserError
from marey.models.encoders import create_encoder


class Probe(nn.Module):
    """Classify clips by a linear map of an encoder's embedding, of a pose vector, or of both.

    Args:
        encoder: a name of `ENCODERS`; None where poses decide alone.
        encoder_arguments: its keyword arguments.
        num_classes: K.
        pose_dim: width of the pose vector, which stands last; 0 for none.

    Raises:
        UserError: if the encoder is unknown, or there is nothing to read.
    """

    task: ClassVar[str] = "clips"

    pose_dim: int
    """Width of the pose vector of the video that it reads beside clips; 0 for none."""

    def __init__(
        self,
        encoder: str | None,
        encoder_arguments: dict[str, Any],
        num_classes: int,
        pose_dim: int = 0,
    ) -> None:
        super().__init__()
        if encoder is None and pose_dim == 0:
            raise UserError("a probe reads an encoder, poses or both; name one")
        self.encoder: Any = None
        width = pose_dim
        if encoder is not None:
            self.encoder = create_encoder(encoder, **encoder_arguments).requires_grad_(False)
            width += int(self.encoder.embed_dim)
            self.num_frames = int(self.encoder.num_frames)
        self.pose_dim = pose_dim
        self.head = nn.Linear(width, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.arguments: dict[str, Any] = {
            "encoder": encoder,
            "encoder_arguments": dict(encoder_arguments),
            "num_classes": num_classes,
            "pose_dim": pose_dim,
        }

    def forward(
        self, clip: Tensor, poses: Tensor | None = None, return_attention: bool = False
    ) -> dict[str, Tensor]:
        """Classify clips.

        Args:
            clip: (B, T, 3, S, S), normalised as the encoder asks; only counted where poses decide
                alone.
            poses: (B, pose_dim), the pose vector of each clip's video.
            return_attention: refused, because a linear map has none.

        Returns:
            "logits" (B, K); "embedding" (B, E), what they are linear in.

        Raises:
            UserError: if the probe reads poses and there are none, or attention is asked for.
        """
        if return_attention:
            raise UserError("a taught probe has no attention; explain it by gradients instead")
        parts = []
        if self.encoder is not None:
            parts.append(self.encoder(clip)["embedding"])
        if self.pose_dim:
            if poses is None:
                raise UserError(
                    "this model reads poses, which a clip of frames alone does not carry; give "
                    "it video files (marey predict, marey evaluate), or teach with --encoder frames"
                )
            parts.append(poses)
        embedding = torch.cat(parts, dim=1)
        return {"logits": self.head(embedding), "embedding": embedding}
