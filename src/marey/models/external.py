"""Video classifiers of other libraries behind our interface: any of `transformers`, and those of
torchvision.

They return `model(clip) -> dict`, and are trained, saved and evaluated like our own models.
"""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

from torch import Tensor, nn
from torchvision.models import get_model

from marey.errors import UserError, import_extra, unknown_name

LIBRARIES = ("transformers", "torchvision")
TORCHVISION_CLIPS = {
    "mc3_18": (16, 2),
    "r2plus1d_18": (16, 2),
    "r3d_18": (16, 2),
    "s3d": (128, 2),
    "mvit_v1_b": (16, 4),
    "mvit_v2_s": (16, 4),
    "swin3d_t": (32, 2),
    "swin3d_s": (32, 2),
    "swin3d_b": (32, 2),
}
"""torchvision model -> (frames, stride at 30 fps): the clip length and frame rate its weights are
documented with."""


class ExternalClassifier(nn.Module):
    """A video classifier of another library.

    A clip of another length than the model's is an error: `transformers` would regroup its tokens
    without a warning and return wrong logits.

    Args:
        library: "transformers" or "torchvision".
        config: for transformers the model's `config.json`; for torchvision {"name": ...}.
        num_classes: K; None keeps the config's.
        num_frames: T; None keeps the config's.
        image_size: S in pixels; None keeps the config's.

    Raises:
        UserError: if the library, or the model in it, is unknown.
    """

    task: ClassVar[str] = "clips"

    def __init__(
        self,
        library: str,
        config: dict[str, Any],
        num_classes: int | None = None,
        num_frames: int | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        if library not in LIBRARIES:
            raise unknown_name("library", library, LIBRARIES)
        build = _build_transformers if library == "transformers" else _build_torchvision
        self.net, self.head, facts = build(config, num_classes, num_frames, image_size)
        self.library = library
        self.num_frames: int = facts["num_frames"]
        self.arguments: dict[str, Any] = {
            "library": library,
            "config": facts["config"],
            "num_classes": facts["num_classes"],
            "num_frames": facts["num_frames"],
            "image_size": facts["image_size"],
        }

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Classify clips.

        Args:
            clip: float, (B, T, C, S, S), normalised as in the model's training.
            return_attention: also return "attention_joint" (transformers only): a list, one (B,
                heads, L, L) tensor per block, over all L tokens of the clip.

        Returns:
            "logits" (B, K), and "embedding" (B, D) where the model has one vector per clip or
            token.

        Raises:
            UserError: if the clip has another number of frames than the model, or its library gives
                no attention.
        """
        if clip.shape[1] != self.num_frames:
            raise UserError(
                f"clip has {clip.shape[1]} frames, but this {self.library} model was built for "
                f"{self.num_frames}; sample {self.num_frames} frames"
            )
        if self.library == "transformers":
            return self._transformers(clip, return_attention)
        if return_attention:
            raise UserError(
                f"torchvision's {self.arguments['config']['name']} does not give its attention; "
                "explain it by gradients instead"
            )
        features = self.net(clip.transpose(1, 2))  # torchvision takes (B, C, T, H, W)
        if isinstance(self.head, nn.Identity):
            return {"logits": features, "embedding": None}
        return {"logits": self.head(features), "embedding": features}

    def _transformers(self, clip: Tensor, return_attention: bool) -> dict[str, Any]:
        if return_attention:
            self.net.set_attn_implementation("eager")  # the fused kernels do not keep their weights
        raw = self.net(
            **{self.net.main_input_name: clip},
            output_hidden_states=True,
            output_attentions=return_attention,
        )
        hidden = raw.hidden_states[-1] if raw.hidden_states else None
        outputs = {
            "logits": raw.logits,
            "embedding": hidden.mean(1) if hidden is not None else None,
        }
        if return_attention:
            outputs["attention_joint"] = list(raw.attentions or [])
        return outputs


def _build_transformers(
    config: dict[str, Any], num_classes: int | None, num_frames: int | None, image_size: int | None
) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    library = import_extra("transformers", "hf", "a transformers model")
    settings = library.AutoConfig.for_model(**copy.deepcopy(config))
    frames_key = "frames_per_clip" if hasattr(settings, "frames_per_clip") else "num_frames"
    size_key = "crop_size" if not hasattr(settings, "image_size") else "image_size"
    if num_classes is not None and num_classes != settings.num_labels:
        settings.num_labels = num_classes
    for key, value in ((frames_key, num_frames), (size_key, image_size)):
        if value is not None:
            setattr(settings, key, value)
    try:
        net = library.AutoModelForVideoClassification.from_config(settings)
    except ValueError as error:
        raise UserError(
            f"transformers has no video classifier of type '{config.get('model_type')}'; "
            "give a TimeSformer, ViViT, VideoMAE, V-JEPA 2 or the like"
        ) from error
    size = getattr(settings, size_key)
    facts = {
        "config": json.loads(settings.to_json_string(use_diff=False)),
        "num_classes": settings.num_labels,
        "num_frames": getattr(settings, frames_key),
        "image_size": size if isinstance(size, int) else size[0],
    }
    return net, nn.Identity(), facts


def _build_torchvision(
    config: dict[str, Any], num_classes: int | None, num_frames: int | None, image_size: int | None
) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Build without weights; a last layer that is one module is moved out, so that its input is the
    embedding."""
    name = config["name"]
    if name not in TORCHVISION_CLIPS:
        raise unknown_name("torchvision model", name, TORCHVISION_CLIPS)
    num_classes = 400 if num_classes is None else num_classes
    net = get_model(name, num_classes=num_classes)
    head: nn.Module = nn.Identity()
    for name_of_head in ("fc", "head"):
        if isinstance(getattr(net, name_of_head, None), (nn.Linear, nn.Sequential)):
            head = getattr(net, name_of_head)
            setattr(net, name_of_head, nn.Identity())
    facts = {
        "config": {"name": name},
        "num_classes": num_classes,
        "image_size": image_size or _crop_size(name),
        "num_frames": TORCHVISION_CLIPS[name][0] if num_frames is None else num_frames,
    }
    return net, head, facts


def _crop_size(name: str) -> int:
    return 112 if name in ("mc3_18", "r2plus1d_18", "r3d_18") else 224
