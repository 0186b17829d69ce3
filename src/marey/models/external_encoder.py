"""Video and image encoders of `transformers`, and those of torchvision, as one interface:
`encoder(clip) -> {"tokens", "embedding"}`.

Legend: B clips, T frames, S pixels per side, L tokens, D width, n tokens of one frame.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torchvision.models import get_model

from marey.errors import UserError, import_extra, unknown_name
from marey.models.external import TORCHVISION_CLIPS

IMAGE_FRAMES = 8
"""Frames of a clip for an encoder of single images."""


def mean_of_tokens(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """VideoMAE: every token of the clip, and their mean, as its classification head takes it."""
    tokens = net(pixel_values=clip).last_hidden_state
    return tokens, tokens.mean(1)


def class_token(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """ViViT and TimeSformer: every token, the class token first; it is the embedding."""
    tokens = net(pixel_values=clip).last_hidden_state
    return tokens, tokens[:, 0]


def vjepa2_tokens(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """V-JEPA 2: the encoder's tokens, without the predictor of its pretraining, and their mean."""
    tokens = net(pixel_values_videos=clip, skip_predictor=True).last_hidden_state
    return tokens, tokens.mean(1)


def videoprism_tokens(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """VideoPrism: the tokens after its temporal blocks, frame-major, and their mean."""
    tokens = net(pixel_values_videos=clip).last_hidden_state
    return tokens, tokens.mean(1)


def xclip_tokens(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """X-CLIP: the patch tokens of its frames, and the video vector that texts are compared with.

    The frames' class tokens go through the multi-frame integration transformer.
    """
    found = net.get_video_features(pixel_values=clip)  # type: ignore[operator]
    tokens = rearrange(found.last_hidden_state[:, 1:], "(b t) n d -> b (t n) d", b=len(clip))
    return tokens, found.pooler_output


def frames_of_images(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return per-frame vectors (B, T, D) as tokens; the embedding (B, 2 D) is their mean and
    standard deviation over time."""
    return vectors, torch.cat((vectors.mean(1), vectors.std(1, correction=0)), dim=-1)


def image_class_token(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """ViT and DINOv2, frame by frame: the class token after the last norm."""
    hidden = net(pixel_values=clip.flatten(0, 1)).last_hidden_state
    return frames_of_images(hidden[:, 0].unflatten(0, clip.shape[:2]))


def image_pooled(net: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor]:
    """CLIP and SigLIP, frame by frame: the pooled vector of the vision model, before projection."""
    vision = getattr(net, "vision_model", net)
    pooled = vision(pixel_values=clip.flatten(0, 1)).pooler_output
    return frames_of_images(pooled.unflatten(0, clip.shape[:2]))


READERS: dict[str, Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]] = {
    "videomae": mean_of_tokens,
    "vjepa2": vjepa2_tokens,
    "vivit": class_token,
    "timesformer": class_token,
    "videoprism_vision_model": videoprism_tokens,
    "xclip": xclip_tokens,
    "vit": image_class_token,
    "dinov2": image_class_token,
    "clip": image_pooled,
    "clip_vision_model": image_pooled,
    "siglip": image_pooled,
    "siglip_vision_model": image_pooled,
}
"""Model type of `transformers` -> (network, clip) to (tokens, embedding)."""
IMAGE_TYPES = ("vit", "dinov2", "clip", "clip_vision_model", "siglip", "siglip_vision_model")
"""The types that read one frame at a time; any number of frames fits them."""
WITHOUT_POOLER = ("vit", "vivit")
"""Types whose pooling layer belongs to no published feature and is missing from many folders."""


class ExternalEncoder(nn.Module):
    """An encoder of another library, without its head.

    Args:
        library: "transformers" or "torchvision".
        config: for transformers the model's `config.json`; for torchvision {"name": ...}.
        num_frames: T of an encoder of single images; None takes 8. For others the config's.

    Raises:
        UserError: if the library, or the type of model in it, is unknown.
    """

    def __init__(self, library: str, config: dict[str, Any], num_frames: int | None = None) -> None:
        super().__init__()
        if library not in ("transformers", "torchvision"):
            raise unknown_name("library", library, ("transformers", "torchvision"))
        if library == "transformers":
            self.net = _transformers_body(config)
            facts = facts_of(self.net.config, num_frames)
        else:
            self.net, facts = _torchvision_body(config)
        self.library = library
        self.num_frames: int = facts["num_frames"]
        self.image_size: int = facts["image_size"]
        self.embed_dim: int = facts["embed_dim"]
        self.arguments: dict[str, Any] = {
            "library": library,
            "config": facts["config"],
            "num_frames": self.num_frames,
        }

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Encode clips.

        Args:
            clip: float, (B, T, C, S, S), normalised as in the encoder's training.

        Returns:
            "tokens" (B, L, D), the last layer, one vector per frame for encoders of images;
            "embedding" (B, E): what `READERS` says for the type.

        Raises:
            UserError: if the clip has another number of frames.
        """
        if clip.shape[1] != self.num_frames:
            raise UserError(
                f"clip has {clip.shape[1]} frames, but this encoder was built for "
                f"{self.num_frames}; sample {self.num_frames} frames"
            )
        if self.library == "transformers":
            tokens, embedding = READERS[self.net.config.model_type](self.net, clip)
            return {"tokens": tokens, "embedding": embedding}
        embedding = self.net(clip.transpose(1, 2))  # torchvision takes (B, C, T, H, W)
        return {"tokens": embedding[:, None], "embedding": embedding}


def supported(config: dict[str, Any], source: str) -> str:
    """Return the model type of a `config.json`.

    Raises:
        UserError: if no encoder of that type can be read.
    """
    kind = str(config.get("model_type"))
    if kind not in READERS:
        raise UserError(
            f"{source}: model type '{kind}' is no encoder that can be read; "
            f"types are {', '.join(sorted(READERS))}"
        )
    return kind


def facts_of(settings: Any, num_frames: int | None = None) -> dict[str, Any]:
    """Return "num_frames", "image_size", "embed_dim" and "config" of a `transformers` config."""
    kind = settings.model_type
    vision = getattr(settings, "vision_config", settings)
    frames = getattr(settings, "frames_per_clip", getattr(vision, "num_frames", IMAGE_FRAMES))
    if kind in IMAGE_TYPES:
        frames = num_frames or IMAGE_FRAMES
    size = getattr(settings, "crop_size", getattr(vision, "image_size", 224))
    width = settings.projection_dim if kind == "xclip" else vision.hidden_size
    return {
        "num_frames": frames,
        "image_size": size if isinstance(size, int) else size[0],
        "embed_dim": 2 * width if kind in IMAGE_TYPES else width,
        "config": json.loads(settings.to_json_string(use_diff=False)),
    }


def _transformers_body(config: dict[str, Any]) -> nn.Module:
    library = import_extra("transformers", "hf", "an encoder of transformers")
    kind = supported(config, "encoder")
    settings = library.AutoConfig.for_model(**copy.deepcopy(config))
    return library.AutoModel.from_config(settings, **body_options(kind)).eval()


def body_options(kind: str) -> dict[str, Any]:
    """Return what `AutoModel` takes for a type, beside the config."""
    return {"add_pooling_layer": False} if kind in WITHOUT_POOLER else {}


def _torchvision_body(config: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Build without weights, the last layer replaced by the identity."""
    name = config["name"]
    if name not in TORCHVISION_CLIPS:
        raise unknown_name("torchvision model", name, TORCHVISION_CLIPS)
    net = get_model(name)
    width = 0
    for head in ("fc", "head", "classifier"):
        layer = getattr(net, head, None)
        if isinstance(layer, nn.Module):
            width = next(
                part.in_features if isinstance(part, nn.Linear) else part.in_channels
                for part in layer.modules()
                if isinstance(part, (nn.Linear, nn.Conv3d))
            )
            setattr(net, head, nn.Identity())
    facts = {
        "config": {"name": name},
        "num_frames": TORCHVISION_CLIPS[name][0],
        "image_size": 112 if name in ("mc3_18", "r2plus1d_18", "r3d_18") else 224,
        "embed_dim": width,
    }
    return net, facts
