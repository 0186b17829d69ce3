"""TimeSformer: a vision transformer that attends over time, then over space.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021. The
same network carries DirecFormer's directed attention (`time_attention="cosine"`) and SeViTAR's
label-embedding head.

Axes: B clips, T frames, N = h*w patches of a frame, D width. Tokens are (B, 1 + T*N, D): the class
token, then the
patches frame by frame. Parameters carry the released code's names.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from marey.errors import UserError
from marey.layers.activation_checkpointing import CHECKPOINTING
from marey.layers.feature_stem import FeatureStem
from marey.layers.pose_stem import PoseStem
from marey.layers.position import (
    resize_joint_embedding,
    resize_position_embedding,
    resize_time_embedding,
)
from marey.layers.stem import build_stem
from marey.layers.transformer_block import (
    ATTENTION_KINDS,
    DividedBlock,
    JointBlock,
    initialise_linear,
)
from marey.models.timesformer_config import TimeSformerConfig
from marey.transforms.keypoints import NUM_KEYPOINTS


class TimeSformer(nn.Module):
    """Classify a clip by divided space-time attention.

    Args:
        config: the settings; or its fields as keyword arguments.

    Raises:
        UserError: if settings do not fit together.
    """

    config_type: ClassVar[type[TimeSformerConfig]] = TimeSformerConfig
    """The settings this class is built from."""

    task: ClassVar[str] = "clips"
    """What the model reads: "clips", "features" or "detection"."""

    has_linear_head: ClassVar[bool] = True
    """Whether the class head is one linear layer, `head`."""

    def __init__(self, config: TimeSformerConfig | None = None, /, **fields: Any) -> None:
        super().__init__()
        config = self.config_type(**fields) if config is None else config
        self.config = config
        num_patches = config.grid[0] * config.grid[1]

        self.patch_embed = build_stem(
            config.stem,
            config.patch_size,
            config.embed_dim,
            stage=config.stem_stage,
            freeze_batch_norm=config.freeze_stem_norm,
            num_persons=config.num_persons,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        positions = num_patches * (config.num_frames if config.position_embedding == "joint" else 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, config.embed_dim))
        if config.attention != "space" and config.position_embedding == "separable":
            self.time_embed = nn.Parameter(torch.zeros(1, config.num_frames, config.embed_dim))
        self.pos_drop = nn.Dropout(config.dropout)

        rates = [
            config.drop_path * index / max(config.depth - 1, 1) for index in range(config.depth)
        ]
        self.blocks = nn.ModuleList(self._build_block(rate) for rate in rates)
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        if self.has_linear_head and config.num_classes > 0:
            self.head = nn.Linear(config.embed_dim, config.num_classes)
        self._initialise()

    def _build_block(self, drop_path: float) -> JointBlock:
        config = self.config
        shared: dict[str, Any] = {
            "attention": ATTENTION_KINDS[config.space_attention],
            "qkv_bias": config.qkv_bias,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "drop_path": drop_path,
        }
        if config.attention != "divided":
            return JointBlock(config.embed_dim, config.num_heads, config.mlp_ratio, **shared)
        return DividedBlock(
            config.embed_dim,
            config.num_heads,
            config.mlp_ratio,
            time_attention=ATTENTION_KINDS[config.time_attention],
            cls_in_time=config.cls_in_time,
            **shared,
        )

    def _initialise(self) -> None:
        """Draw linear layers, class token and positions from a truncated normal of standard
        deviation .02.

        Time embeddings and `temporal_fc` (weight and bias, in every block) start at zero.
        """
        initialise_linear(self.blocks)
        initialise_linear(getattr(self, "head", nn.Identity()))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            # With γ-time of Eq. 7 at zero, a divided block starts as an image transformer's block.
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)
                nn.init.zeros_(block.temporal_fc.bias)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that build this model, as JSON types."""
        return self.config.to_dict()

    @property
    def feature_stem(self) -> FeatureStem | None:
        """The stem, if its features can be computed once and stored; else None."""
        return self.patch_embed if isinstance(self.patch_embed, FeatureStem) else None

    def embed(self, clip: Tensor) -> Tensor:
        """Turn a clip into tokens with position and time (DirecFormer, Eq. 3; SeViTAR, Eq. 1).

        Args:
            clip: float, (B, T, 3, H, W), or (B, T, N, D) patches of `embed_frames`; with a
                `feature_stem` also its features (B, T, N, C), kept from an earlier pass; with stem
                "pose" keypoints (B, T, P*17, 3).

        Returns:
            (B, 1 + T*N, D); for attention "space" (B*T, 1 + N, D).

        Raises:
            UserError: if the clip's length or size is not the model's and `resize_embeddings` is
                None.
        """
        stem, config = self.feature_stem, self.config
        grid = config.grid

        # α(x): patches (B, T, N, D) without position, from stored features, stored patches, or
        # pixels.
        if config.stem == "pose":
            patches = self.patch_embed(self._check_keypoints(clip))
        elif clip.ndim == 4 and stem is not None:
            patches = stem.tokens(clip)
        elif clip.ndim == 4 and clip.shape[2:] == (grid[0] * grid[1], config.embed_dim):
            patches = clip
        else:
            B, T, H, W = self._check_clip(clip)
            grid = (H // config.patch_size, W // config.patch_size)
            patches = self.patch_embed(clip.flatten(0, 1)).view(
                B, T, grid[0] * grid[1], config.embed_dim
            )

        # Eq. 3 (DirecFormer) and Eq. 1 (SeViTAR): z = α(x) + e.
        B, T = patches.shape[:2]
        cls, positions = self._position(T, grid)
        if config.attention == "space":
            tokens = torch.cat(
                (cls.expand(B * T, -1, -1), (patches + positions).flatten(0, 1)), dim=1
            )
        else:
            tokens = torch.cat((cls.expand(B, -1, -1), (patches + positions).flatten(1, 2)), dim=1)
        return self.pos_drop(tokens)

    def embed_frames(self, frames: Tensor) -> Tensor | None:
        """Return patches (M, N, D) of frames (M, 3, H, W), before position and time, for `forward`
        instead of a clip.

        For windows that share frames. None where the model cannot take them: it has a
        `feature_stem`, or the frames are of another size than the model's.
        """
        size = self.config.image_size
        if (
            self.feature_stem is not None
            or self.config.stem == "pose"
            or frames.shape[-2:] != (size, size)
        ):
            return None
        return self.patch_embed(frames)

    def stem_features(self, clip: Tensor) -> Tensor | None:
        """Return the stem's features (B, T, N, C) of a clip (B, T, 3, H, W), for `forward` instead
        of the clip.

        Features pass through. None where there are none: no `feature_stem`, or a clip of another
        size than the model's.
        """
        stem, size = self.feature_stem, self.config.image_size
        if stem is None or clip.ndim == 4:
            return None if stem is None else clip
        if clip.shape[-2:] != (size, size):
            return None
        return stem.features(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])

    def _position(self, T: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the class token with its position (1, 1, D), and what is added to the patches (1,
        T or 1, N, D)."""
        config = self.config
        mode = config.resize_embeddings or "nearest"

        # The mode is used only if the clip differs from the model's; `_check_clip` has refused it
        # if it may not.
        if config.position_embedding == "joint":
            position = resize_joint_embedding(
                self.pos_embed, (config.num_frames, *config.grid), (T, *grid), mode
            )
            of_patches = position[:, 1:].reshape(1, T, grid[0] * grid[1], -1)  # (1, T, N, D)
        else:
            position = resize_position_embedding(self.pos_embed, config.grid, grid, mode)
            of_patches = position[:, None, 1:]  # (1, 1, N, D)
            if config.attention != "space":
                of_patches = (
                    of_patches + resize_time_embedding(self.time_embed, T, mode)[:, :, None]
                )
        return self.cls_token + position[:, :1], of_patches

    def _check_clip(self, clip: Tensor) -> tuple[int, int, int, int]:
        if clip.ndim != 5 or clip.shape[2] != 3:
            raise UserError(
                f"clip has shape {tuple(clip.shape)}, but the model takes (B, T, 3, H, W)"
            )
        if not clip.is_floating_point():
            raise UserError(
                f"clip is {clip.dtype}, but the model takes normalised float pixels; apply its "
                "Preprocess"
            )
        B, T, _, H, W = clip.shape
        config = self.config
        if config.resize_embeddings is None:
            counts_frames = config.attention != "space" or config.position_embedding == "joint"
            if config.num_frames != T and counts_frames:
                raise UserError(
                    f"clip has {T} frames, but this model was built for {config.num_frames}; "
                    f"sample that many, or build with num_frames={T} or resize_embeddings='nearest'"
                )
            if (config.image_size, config.image_size) != (H, W):
                raise UserError(
                    f"clip is {H}x{W} pixels, but this model was built for {config.image_size}x"
                    f"{config.image_size}; resize it, or build with resize_embeddings='nearest'"
                )
        if H % config.patch_size or W % config.patch_size:
            raise UserError(
                f"clip is {H}x{W} pixels, no multiple of patch_size {config.patch_size}; crop it "
                "to one"
            )
        return B, T, H, W

    def _check_keypoints(self, clip: Tensor) -> Tensor:
        persons, T = self.config.num_persons, self.config.num_frames
        if clip.ndim != 4 or clip.shape[1:] != (T, persons * NUM_KEYPOINTS, 3):
            raise UserError(
                f"clip has shape {tuple(clip.shape)}, but this model takes keypoints (B, {T}, "
                f"{persons * NUM_KEYPOINTS}, 3): x, y, score; `marey predict` finds them in a video"
            )
        return clip

    def encode(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Run the blocks: the tokens before the last norm, and the attention of every block if
        asked for.

        Args:
            clip: float, (B, T, 3, H, W).
            return_attention: also return the weights of every block.

        Returns:
            "tokens" (B, 1 + T*N, D), or (B, 1 + N, D) for attention "space", averaged over frames;
            and, differentiable,
            "attention_time": one (B, N, heads, T, T) per block, with `cls_in_time` (B, N, heads, T,
                1 + T), the class
            token's column first; "attention_space": one (B, T, heads, 1 + N, 1 + N) per block.
            Attention "space" has no "attention_time"; "joint" gives "attention_joint", one (B,
            heads, 1 + T*N, 1 + T*N) per block, instead.
        """
        form, T = self.config.attention, clip.shape[1]
        tokens = self.embed(clip)
        stem = self.patch_embed
        visible = stem.visible(clip).flatten(1) if isinstance(stem, PoseStem) else None  # (B, T*N)
        time_weights: list[Tensor] = []
        space_weights: list[Tensor] = []
        for block in self.blocks:
            tokens, over_time, over_space = self._run_block(
                block, tokens, T, return_attention, visible
            )
            if over_time is not None:
                time_weights.append(over_time)
            if over_space is not None:
                space_weights.append(over_space)

        # Attention "space" ran frame by frame, (B*T, 1 + N, D); its clip token is the mean over
        # frames.
        if form == "space":
            tokens = tokens.unflatten(0, (-1, T)).mean(1)
            space_weights = [weights.unflatten(0, (-1, T)) for weights in space_weights]
        outputs: dict[str, Any] = {"tokens": tokens}
        if not return_attention:
            return outputs
        if form == "joint":
            return outputs | {"attention_joint": space_weights}
        if form == "divided":
            outputs["attention_time"] = time_weights
        return outputs | {"attention_space": space_weights}

    def _run_block(
        self,
        block: nn.Module,
        tokens: Tensor,
        T: int,
        return_attention: bool,
        visible: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run a block, with activation checkpointing if it is set."""
        policy = self.config.activation_checkpointing
        if policy and self.training and torch.is_grad_enabled():
            out = checkpoint(
                block,
                tokens,
                T,
                return_attention,
                visible,
                use_reentrant=False,
                **CHECKPOINTING[policy],
            )
        else:
            out = block(tokens, T, return_attention, visible)
        return cast(tuple[Tensor, Tensor | None, Tensor | None], out)

    def features(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Return the input of the heads: "tokens" (as `encode`, after the last norm) and
        "embedding" (B, D), the class token's; with `return_attention` also the keys of `encode`."""
        outputs = self.encode(clip, return_attention)
        outputs["tokens"] = self.norm(outputs["tokens"])
        outputs["embedding"] = outputs["tokens"][:, 0]
        return outputs

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Classify clips.

        Args:
            clip: float, (B, T, 3, H, W), RGB, normalised.
            return_attention: also return every block's weights, under the keys and axes of
                `encode`.

        Returns:
            "logits" (B, K) if there is a head, "embedding" (B, D).
        """
        check_batch(clip, int(self.arguments["num_frames"]))
        outputs = self.encode(clip, return_attention)
        return self.forward_head(outputs.pop("tokens")[:, 0]) | outputs

    def forward_head(self, cls: Tensor) -> dict[str, Any]:
        """Apply norm and heads to the class token (B, D) of the last block."""
        embedding = self.norm(cls)
        logits = {"logits": self.head(embedding)} if hasattr(self, "head") else {}
        return logits | {"embedding": embedding}


def check_batch(clip: Tensor, num_frames: int) -> None:
    """Refuse a clip without the axis of the batch.

    Raises:
        UserError: if `clip` is neither (B, T, C, H, W) nor features of a stem, (B, T, N, C).
    """
    if clip.ndim not in (4, 5) or (clip.ndim == 4 and clip.shape[1] == 3 != num_frames):
        raise UserError(
            f"a model takes a batch of clips, (B, T, 3, H, W), got {tuple(clip.shape)}; "
            "clip[None] makes a batch of one"
        )


def with_stem(model: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor | None]:
    """Run the network of a pretrained stem once; return what the model takes instead of the clip,
    and its mean feature.

    Args:
        model: any; only a TimeSformer with a `feature_stem` is treated so.
        clip: (B, T, 3, H, W), or the stem's features (B, T, N, C).

    Returns:
        The stem's features (B, T, N, C) and their mean over frames and patches (B, C); the clip
        itself and None for models without them.
    """
    features = model.stem_features(clip) if isinstance(model, TimeSformer) else None
    if features is None:
        return clip, None
    return features, features.float().mean((1, 2))


def stretched_state(
    source: TimeSformer, target: TimeSformer, mode: str = "nearest"
) -> dict[str, Tensor]:
    """Return the weights of `source` with its embeddings stretched to the grid and clip length of
    `target`.

    The start of a fine-tuning at another resolution or number of frames. A separable embedding
    becomes a joint one as the sum of patch and frame; there is no way back, and the embedding is
    left out.

    Args:
        source, target: models of TimeSformer's family.
        mode: "nearest" as released, or "bicubic".
    """
    have, wanted = source.config, target.config
    state = dict(source.state_dict())
    position, time = state.pop("pos_embed"), state.pop("time_embed", None)
    if have.position_embedding == wanted.position_embedding == "joint":
        state["pos_embed"] = resize_joint_embedding(
            position, (have.num_frames, *have.grid), (wanted.num_frames, *wanted.grid), mode
        )
        return state
    if have.position_embedding == "joint":
        return state

    position = resize_position_embedding(position, have.grid, wanted.grid, mode)
    if time is not None:
        time = resize_time_embedding(time, wanted.num_frames, mode)
    if wanted.position_embedding == "separable":
        state["pos_embed"] = position
        if time is not None:
            state["time_embed"] = time
    elif time is not None:
        # Separable to joint: each pair of patch and frame gets the sum of both vectors.
        of_patches = position[:, None, 1:] + time[:, :, None]  # (1, T, N, D)
        state["pos_embed"] = torch.cat((position[:, :1], of_patches.flatten(1, 2)), dim=1)
    return state
