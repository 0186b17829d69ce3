"""A plain convolutional classifier that pre-trains a stem for a transformer.

From scratch on randomised renders, a small transformer behind untrained convolutions stays at
chance for hundreds of steps, and its gradients keep the convolutions from learning too. The same
convolutions under this head reach an accuracy of 0.45 on 23 classes in 400 steps of 64 clips, and
the transformer then learns from its first steps.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError
from marey.layers.stem import build_stem

TIME_CELLS = 4
"""Parts of the clip along time that the head pools separately."""


class StemClassifier(nn.Module):
    """Classify a clip from all its tokens: a linear map per frame, two convolutions over time, a
    linear map.

    Args:
        num_classes: K.
        num_frames: T, at least 4.
        image_size: pixels per side.
        patch_size: pixels per token.
        embed_dim: token width D of the stem.
        hidden: width of the head.
        stem, stem_stage: as `TimeSformer`.

    Raises:
        UserError: if arguments do not fit together.
    """

    task: ClassVar[str] = "clips"

    def __init__(
        self,
        num_classes: int,
        num_frames: int = 8,
        image_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 128,
        hidden: int = 192,
        stem: str = "conv",
        stem_stage: int | None = None,
    ):
        super().__init__()
        self.arguments: dict[str, Any] = {
            "num_classes": num_classes,
            "num_frames": num_frames,
            "image_size": image_size,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "hidden": hidden,
            "stem": stem,
            "stem_stage": stem_stage,
        }
        if image_size % patch_size or num_frames < TIME_CELLS:
            raise UserError(
                f"image_size {image_size} must be a multiple of patch_size {patch_size}, and "
                f"num_frames {num_frames} at least {TIME_CELLS}"
            )
        self.patch_embed = build_stem(stem, patch_size, embed_dim, stage=stem_stage)
        self.num_frames, self.image_size = num_frames, image_size
        self.per_frame = nn.Linear((image_size // patch_size) ** 2 * embed_dim, hidden)
        self.over_time = nn.ModuleList(nn.Conv1d(hidden, hidden, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(hidden * TIME_CELLS, num_classes)

    def forward(self, clip: Tensor) -> dict[str, Any]:
        """Classify clips (B, T, 3, H, W): "logits" (B, K), "embedding" (B, 4*hidden).

        Raises:
            UserError: if the clip's length or size is not the model's.
        """
        B, T, _, H, W = clip.shape
        if (self.num_frames, self.image_size, self.image_size) != (T, H, W):
            raise UserError(
                f"clip is {T} frames of {H}x{W} pixels, but this model was built for "
                f"{self.num_frames} of {self.image_size}x{self.image_size}"
            )
        tokens = self.patch_embed(clip.flatten(0, 1)).flatten(1)  # (B*T, N*D)
        values = (
            F.relu(self.per_frame(tokens)).unflatten(0, (B, T)).transpose(1, 2)
        )  # (B, hidden, T)
        for layer in self.over_time:
            values = F.relu(layer(values))
        embedding = F.adaptive_avg_pool1d(values, TIME_CELLS).flatten(1)
        return {"logits": self.head(embedding), "embedding": embedding}
