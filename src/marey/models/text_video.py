"""X-CLIP of `transformers`: a video compared with texts, which the video itself helps to phrase.

Ni et al., "Expanding Language-Image Pretrained Models for General Video Recognition", ECCV 2022:
text vectors are shifted by a prompt that depends on the video (Eq. 5), so a text has no vector of
its own and both are read together.

Legend: B clips, T frames, S pixels per side, K texts, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marey.errors import UserError


class TextVideoModel(nn.Module):
    """Rank texts for clips.

    Args:
        net: an `XCLIPModel`.
        tokenizer: of its texts.
    """

    task: ClassVar[str] = "texts"

    def __init__(self, net: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.net = net
        self.tokenizer = tokenizer
        vision: Any = net.config.vision_config
        self.num_frames = int(vision.num_frames)
        self.arguments: dict[str, Any] = {
            "num_frames": self.num_frames,
            "image_size": int(vision.image_size),
        }

    def forward(self, clip: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """Compare clips with texts.

        Args:
            clip: float, (B, T, C, S, S), normalised as in the model's training.

        Returns:
            "logits" (B, K): scaled cosine similarities; "embedding" (B, D), of the video.

        Raises:
            UserError: if the clip has another number of frames, or a text is too long.
        """
        if clip.shape[1] != self.num_frames:
            raise UserError(
                f"clip has {clip.shape[1]} frames, but this model was built for "
                f"{self.num_frames}; sample {self.num_frames} frames"
            )
        words = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        W, most = words["input_ids"].shape[1], self.net.config.text_config.max_position_embeddings
        if most < W:
            raise UserError(
                f"the longest of the names has {W} word pieces, the model reads {most}; shorten it"
            )
        raw = self.net(
            input_ids=words["input_ids"].to(clip.device),
            attention_mask=words["attention_mask"].to(clip.device),
            pixel_values=clip,
        )
        return {"logits": raw.logits_per_video, "embedding": raw.video_embeds}


@torch.inference_mode()
def text_logits(
    model: TextVideoModel, clips: Tensor, texts: Sequence[str], device: torch.device
) -> Tensor:
    """Return the logits (B, K) of clips, float32 on the CPU."""
    return model(clips.to(device), texts)["logits"].float().cpu()
