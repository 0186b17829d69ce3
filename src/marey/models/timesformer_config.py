"""The settings that TimeSformer and every model built on it share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

from marey.errors import UserError
from marey.layers.activation_checkpointing import CHECKPOINTING
from marey.layers.transformer_block import ATTENTION_KINDS
from marey.transforms.keypoints import PART_NAMES

ATTENTION_FORMS = ("divided", "joint", "space")
"""What `attention` names: time then space, all tokens at once, each frame alone."""

POSITION_EMBEDDINGS = ("separable", "joint")
"""What `position_embedding` names: a vector per patch plus one per frame, or one per pair of
them."""


@dataclass(frozen=True, kw_only=True)
class TimeSformerConfig:
    """How a TimeSformer is built.

    Raises:
        UserError: if settings do not fit together.
    """

    num_classes: int
    """K; 0 leaves the head out, and `logits` with it."""

    num_frames: int = 8
    """T."""

    image_size: int = 224
    """Pixels per side, a multiple of `patch_size`."""

    patch_size: int = 16
    """Pixels per side of a patch."""

    embed_dim: int = 768
    """D, the width of a token."""

    depth: int = 12
    """Number of blocks."""

    num_heads: int = 12
    """Heads per block."""

    mlp_ratio: float = 4.0
    """Inner MLP width / D."""

    attention: str = "divided"
    """"divided" (time, then space), "joint" (all tokens at once), or "space" (each frame alone,
    averaged)."""

    time_attention: str = "softmax"
    """"softmax", or "cosine" (DirecFormer)."""

    space_attention: str = "softmax"
    """As `time_attention`; `attention="joint"` is one attention and needs both equal."""

    cls_in_time: bool = False
    """Whether temporal attention has the class token as an extra key and value (DirecFormer, Eq.
    6)."""

    position_embedding: str = "separable"
    """"separable" (patch plus frame, as released), or "joint": one vector per patch and frame
    (SeViTAR, Eq. 1: μ; DirecFormer, Eq. 3: e)."""

    stem: str = "linear"
    """"linear", "conv", "efficientnet_lite0", "conv+efficientnet_lite0" (the image network beside
    the convolutions, not in the tokens), or "pose": keypoints of persons in place of pixels."""

    num_persons: int = 1
    """P, persons of a clip of keypoints, the one asked about first; only with stem "pose"."""

    stem_stage: int | None = None
    """Stages of EfficientNet-Lite0 to keep; None keeps all of stride `patch_size`."""

    freeze_stem_norm: bool = False
    """Keep the stem's batch norm statistics as they are while training."""

    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""

    dropout: float = 0.0
    """On embeddings, projections and MLPs."""

    attention_dropout: float = 0.0
    """On attention weights."""

    qkv_bias: bool = True
    """Whether the q, k, v projections have a bias."""

    resize_embeddings: str | None = None
    """None: a clip of another length or size is an error; "nearest" (as released) or "bicubic": the
    embeddings
    are stretched to it."""

    activation_checkpointing: bool | str = False
    """True: compute each block again in the backward pass instead of keeping its activations;
    "cheap": keep
    matrix products, compute norms, GELU and sums again."""

    def __post_init__(self) -> None:
        size, patch = self.image_size, self.patch_size
        if size % patch:
            raise UserError(
                f"image_size {size} is no multiple of patch_size {patch}; "
                f"choose {size // patch * patch or patch}"
            )

        check_choice("attention", self.attention, ATTENTION_FORMS)
        check_choice("space_attention", self.space_attention, ATTENTION_KINDS)
        check_choice("time_attention", self.time_attention, ATTENTION_KINDS)
        check_choice("position_embedding", self.position_embedding, POSITION_EMBEDDINGS)
        if self.stem == "pose" and self.attention == "space":
            raise UserError(
                "stem 'pose' needs attention over time; build with attention='divided' or 'joint'"
            )
        if self.attention == "joint" and self.time_attention != self.space_attention:
            raise UserError(
                "attention 'joint' is one attention, but time_attention is "
                f"'{self.time_attention}' and "
                f"space_attention '{self.space_attention}'; give both the same kind"
            )
        if self.activation_checkpointing is not False:
            check_choice("activation_checkpointing", self.activation_checkpointing, CHECKPOINTING)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid; with stem "pose" one row of the person's 13 parts and
        the other persons."""
        if self.stem == "pose":
            return 1, len(PART_NAMES) + self.num_persons - 1
        side = self.image_size // self.patch_size
        return side, side

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types: the keyword arguments that `create_model` takes."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


def check_choice(setting: str, value: object, choices: Collection[Any]) -> None:
    """Raise a UserError unless `value` is one of the choices of a setting."""
    if value not in choices:
        raise UserError(
            f"{setting} is '{value}', but must be one of {', '.join(map(str, choices))}"
        )
