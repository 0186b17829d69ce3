"""TimeSformer: a vision transformer that attends over time, then over space.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021. The same trunk carries
DirecFormer's directed attention (`time_attention="cosine"`) and SeViTAR's label-embedding head.

Axes: B clips, T frames, N = h*w places of the patch grid, D width. Tokens are (B, 1 + T*N, D): the class token, then
the patches frame by frame. Parameters carry the released code's names.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from marey.errors import UserError
from marey.layers.position import resize_joint_embedding, resize_position_embedding, resize_time_embedding
from marey.layers.stem import build_stem
from marey.layers.transformer_block import ATTENTION_KINDS, DividedBlock, JointBlock, initialise_linear

ATTENTION_FORMS = ("divided", "joint", "space")
"""What `attention` names: time then space, all tokens at once, each frame alone."""


KEPT_PRODUCTS = tuple(getattr(torch.ops.aten, name).default for name in (
    "addmm", "mm", "bmm", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"))
"""What `activation_checkpointing="cheap"` keeps: whatever costs a matrix product. Norms, GELU and sums come again."""


def keep_products(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    """Return whether the output of an operation is kept for the backward pass or computed again in it."""
    return CheckpointPolicy.MUST_SAVE if operation in KEPT_PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


CHECKPOINTING: dict[Any, dict[str, Any]] = {
    True: {}, "cheap": {"context_fn": partial(create_selective_checkpoint_contexts, keep_products)}}
"""What `activation_checkpointing` names, with the arguments of PyTorch's `checkpoint`; False is none."""


def choose(kind: str, value: str, choices: tuple[str, ...] | dict[str, Any]) -> str:
    """Return `value` if it is one of the choices.

    Raises:
        UserError: if it is not.
    """
    if value not in choices:
        raise UserError(f"{kind} is '{value}', but must be one of {', '.join(map(str, choices))}")
    return value


class TimeSformer(nn.Module):
    """Classify a clip by divided space-time attention.

    Args:
        num_classes: K; 0 leaves the head out, and `logits` with it.
        num_frames: T.
        image_size: pixels per side (a multiple of `patch_size`).
        patch_size: P.
        embed_dim: D.
        depth: blocks.
        num_heads: heads per block.
        mlp_ratio: inner MLP width / D.
        attention: "divided" (time, then space), "joint" (all tokens at once), or "space" (each frame alone, averaged).
        time_attention, space_attention: "softmax", or "cosine" (DirecFormer); "joint" needs both equal.
        cls_in_time: whether temporal attention has the class token as an extra key and value (DirecFormer, Eq. 6).
        position_embedding: "separable" (place plus time, as released), or "joint": one vector per place and time
            (SeViTAR, Eq. 1: μ; DirecFormer, Eq. 3: e).
        stem: "linear", "conv", "efficientnet_lite0", or "conv+efficientnet_lite0" (the image network beside the
            convolutions, not in the tokens).
        stem_stage: stages of EfficientNet-Lite0 to keep; None keeps all of stride `patch_size`.
        freeze_stem_norm: keep the stem's batch norm statistics as they are while training.
        drop_path: stochastic depth of the last block; it grows linearly from 0.
        dropout: on embeddings, projections and MLPs.
        attention_dropout: on attention weights.
        qkv_bias: whether q, k, v projections have a bias.
        resize_embeddings: None: a clip of another length or size is an error; "nearest" (as released) or "bicubic":
            its embeddings are stretched.
        activation_checkpointing: True: compute each block again in the backward pass instead of keeping its
            activations; "cheap": keep matrix products, compute norms, GELU and sums again.

    Raises:
        UserError: if arguments do not fit together.
    """

    def __init__(self, num_classes: int, num_frames: int = 8, image_size: int = 224, patch_size: int = 16,
                 embed_dim: int = 768, depth: int = 12, num_heads: int = 12, mlp_ratio: float = 4.0,
                 attention: str = "divided", time_attention: str = "softmax", space_attention: str = "softmax",
                 cls_in_time: bool = False, position_embedding: str = "separable", stem: str = "linear",
                 stem_stage: int | None = None, freeze_stem_norm: bool = False, drop_path: float = 0.0,
                 dropout: float = 0.0, attention_dropout: float = 0.0, qkv_bias: bool = True,
                 resize_embeddings: str | None = None,
                 activation_checkpointing: bool | str = False):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.arguments: dict[str, Any] = arguments
        if image_size % patch_size:
            raise UserError(f"image_size {image_size} is no multiple of patch_size {patch_size}; "
                            f"choose {image_size // patch_size * patch_size or patch_size}")
        choose("attention", attention, ATTENTION_FORMS)
        space_kind = ATTENTION_KINDS[choose("space_attention", space_attention, ATTENTION_KINDS)]
        time_kind = ATTENTION_KINDS[choose("time_attention", time_attention, ATTENTION_KINDS)]
        choose("position_embedding", position_embedding, ("separable", "joint"))
        if attention == "joint" and time_kind is not space_kind:
            raise UserError(f"attention 'joint' is one attention, but time_attention is '{time_attention}' and "
                            f"space_attention '{space_attention}'; give both the same kind")
        if activation_checkpointing is not False:
            choose("activation_checkpointing", cast(Any, activation_checkpointing), CHECKPOINTING)
        self.num_frames, self.image_size, self.patch_size = num_frames, image_size, patch_size
        self.attention_form, self.position_embedding = attention, position_embedding
        self.resize_embeddings = resize_embeddings
        self.activation_checkpointing = activation_checkpointing
        side = image_size // patch_size
        self.grid = (side, side)
        self.embed_dim = embed_dim

        self.patch_embed = build_stem(stem, patch_size, embed_dim, stage=stem_stage, freeze_batch_norm=freeze_stem_norm)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        places = side * side * (num_frames if position_embedding == "joint" else 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + places, embed_dim))
        if attention != "space" and position_embedding == "separable":
            self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.pos_drop = nn.Dropout(dropout)
        shared: dict[str, Any] = {"attention": space_kind, "qkv_bias": qkv_bias, "dropout": dropout,
                                  "attention_dropout": attention_dropout}
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        if attention == "divided":
            blocks: list[nn.Module] = [DividedBlock(embed_dim, num_heads, mlp_ratio, time_attention=time_kind,
                                                    cls_in_time=cls_in_time, drop_path=rate, **shared)
                                       for rate in rates]
        else:
            blocks = [JointBlock(embed_dim, num_heads, mlp_ratio, drop_path=rate, **shared) for rate in rates]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        if num_classes > 0:
            self.head = nn.Linear(embed_dim, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """Truncated normal of deviation .02 for linear layers, class token and places; zero for time embeddings
        and for `temporal_fc`, weight and bias, in every block."""
        initialise_linear(self.blocks)
        initialise_linear(getattr(self, "head", nn.Identity()))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for block in self.blocks:
            if isinstance(block, DividedBlock):
                nn.init.zeros_(block.temporal_fc.weight)
                nn.init.zeros_(block.temporal_fc.bias)

    def embed(self, clip: Tensor) -> Tensor:
        """Turn a clip into tokens with position and time (DirecFormer, Eq. 3; SeViTAR, Eq. 1).

        Args:
            clip: float, (B, T, 3, H, W), or (B, T, N, D) patches of `embed_frames`; with a stem that has a trunk
                instead the trunk's features (B, T, N, C), kept from an earlier pass
                (`marey.training.feature_cache`).

        Returns:
            (B, 1 + T*N, D); for attention "space" (B*T, 1 + N, D).

        Raises:
            UserError: if the clip's length or size is not the model's and `resize_embeddings` is None.
        """
        if clip.ndim == 4 and hasattr(self.patch_embed, "trunk"):
            B, T = clip.shape[:2]
            patches, grid = self.patch_embed.tokens(clip), self.grid  # type: ignore[operator]
        elif clip.ndim == 4 and clip.shape[2:] == (self.grid[0] * self.grid[1], self.embed_dim):
            B, T = clip.shape[:2]
            patches, grid = clip, self.grid
        else:
            B, T, H, W = self._check_clip(clip)
            grid = (H // self.patch_size, W // self.patch_size)
            patches = self.patch_embed(clip.flatten(0, 1)).view(B, T, grid[0] * grid[1], self.embed_dim)
        cls, places = self._position(T, grid)
        if self.attention_form == "space":
            tokens = torch.cat((cls.expand(B * T, -1, -1), (patches + places).flatten(0, 1)), dim=1)
        else:
            tokens = torch.cat((cls.expand(B, -1, -1), (patches + places).flatten(1, 2)), dim=1)
        return self.pos_drop(tokens)

    def embed_frames(self, frames: Tensor) -> Tensor | None:
        """Return patches (M, N, D) of frames (M, 3, H, W), before position and time, for `forward` in a clip's place.

        For windows that share frames. None where the model cannot take them: a stem with a trunk, or frames of another
        size than the model's.
        """
        if hasattr(self.patch_embed, "trunk") or frames.shape[-2:] != (self.image_size, self.image_size):
            return None
        return self.patch_embed(frames)

    def _position(self, T: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the class token with its position (1, 1, D), and what is added to the patches (1, T or 1, N, D)."""
        mode = self.resize_embeddings or "nearest"
        if self.position_embedding == "joint":
            position = resize_joint_embedding(self.pos_embed, (self.num_frames, *self.grid), (T, *grid), mode)
            places = position[:, 1:].reshape(1, T, grid[0] * grid[1], -1)
        else:
            position = resize_position_embedding(self.pos_embed, self.grid, grid, mode)
            places = position[:, None, 1:]
            if self.attention_form != "space":
                places = places + resize_time_embedding(self.time_embed, T, mode)[:, :, None]
        return self.cls_token + position[:, :1], places

    def _check_clip(self, clip: Tensor) -> tuple[int, int, int, int]:
        if clip.ndim != 5 or clip.shape[2] != 3:
            raise UserError(f"clip has shape {tuple(clip.shape)}, but the model takes (B, T, 3, H, W)")
        if not clip.is_floating_point():
            raise UserError(f"clip is {clip.dtype}, but the model takes normalised float pixels; apply its Preprocess")
        B, T, _, H, W = clip.shape
        if self.resize_embeddings is None:
            if self.num_frames != T and (self.attention_form != "space" or self.position_embedding == "joint"):
                raise UserError(f"clip has {T} frames, but this model was built for {self.num_frames}; sample that "
                                f"many, or build with num_frames={T} or resize_embeddings='nearest'")
            if (self.image_size, self.image_size) != (H, W):
                raise UserError(f"clip is {H}x{W} pixels, but this model was built for {self.image_size}x"
                                f"{self.image_size}; resize it, or build with resize_embeddings='nearest'")
        if H % self.patch_size or W % self.patch_size:
            raise UserError(f"clip is {H}x{W} pixels, no multiple of patch_size {self.patch_size}; crop it to one")
        return B, T, H, W

    def encode(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Run the blocks: the tokens before the last norm, and the attention of every block if asked for.

        Args:
            clip: float, (B, T, 3, H, W).
            return_attention: also return the weights of every block.

        Returns:
            "tokens" (B, 1 + T*N, D), or (B, 1 + N, D) for attention "space", averaged over frames; and, differentiable,
            "attention_time": one (B, N, heads, T, T) per block, with `cls_in_time` (B, N, heads, T, 1 + T), the class
            token's column first; "attention_space": one (B, T, heads, 1 + N, 1 + N) per block. Attention "space" has no
            "attention_time"; "joint" gives "attention_joint", one (B, heads, 1 + T*N, 1 + T*N) per block, instead.
        """
        tokens, T = self.embed(clip), clip.shape[1]
        time_weights: list[Tensor] = []
        space_weights: list[Tensor] = []
        for block in self.blocks:
            if self.activation_checkpointing and self.training and torch.is_grad_enabled():
                answer = checkpoint(block, tokens, T, return_attention, use_reentrant=False,
                                    **CHECKPOINTING[self.activation_checkpointing])
            else:
                answer = block(tokens, T, return_attention)
            tokens, over_time, over_space = cast(tuple[Tensor, Tensor | None, Tensor | None], answer)
            if over_time is not None:
                time_weights.append(over_time)
            if over_space is not None:
                space_weights.append(over_space)
        if self.attention_form == "space":
            tokens = tokens.unflatten(0, (-1, T)).mean(1)
            space_weights = [weights.unflatten(0, (-1, T)) for weights in space_weights]
        outputs: dict[str, Any] = {"tokens": tokens}
        if return_attention and self.attention_form == "joint":
            outputs["attention_joint"] = space_weights
        elif return_attention:
            outputs |= {"attention_time": time_weights} if self.attention_form == "divided" else {}
            outputs["attention_space"] = space_weights
        return outputs

    def features(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Return what the heads look at: "tokens" (as `encode`, after the last norm) and "embedding" (B, D), the
        class token's; with `return_attention` also the keys of `encode`."""
        outputs = self.encode(clip, return_attention)
        outputs["tokens"] = self.norm(outputs["tokens"])
        outputs["embedding"] = outputs["tokens"][:, 0]
        return outputs

    def forward(self, clip: Tensor, return_attention: bool = False) -> dict[str, Any]:
        """Classify clips.

        Args:
            clip: float, (B, T, 3, H, W), RGB, normalised.
            return_attention: also return every block's weights, under the keys and axes of `encode`.

        Returns:
            "logits" (B, K) if there is a head, "embedding" (B, D).
        """
        outputs = self.encode(clip, return_attention)
        return self.answer(outputs.pop("tokens")[:, 0]) | outputs

    def answer(self, cls: Tensor) -> dict[str, Any]:
        """Apply norm and heads to the class token (B, D) of the last block."""
        embedding = self.norm(cls)
        logits = {"logits": self.head(embedding)} if hasattr(self, "head") else {}
        return logits | {"embedding": embedding}


def with_stem(model: nn.Module, clip: Tensor) -> tuple[Tensor, Tensor | None]:
    """Run the trunk of a pretrained stem once; return what the model takes in the clip's place, and its mean feature.

    Args:
        model: any; only a TimeSformer whose stem has a trunk is treated so.
        clip: (B, T, 3, H, W), or the trunk's features (B, T, N, C).

    Returns:
        The trunk's features (B, T, N, C) and their mean over frames and places (B, C); the clip itself and None for
        models without a trunk.
    """
    trunk = getattr(getattr(model, "patch_embed", None), "trunk", None)
    if not isinstance(model, TimeSformer) or trunk is None:
        return clip, None
    if clip.ndim == 5:
        B, T, _, H, W = clip.shape
        if (model.image_size, model.image_size) != (H, W):
            return clip, None
        clip = trunk(clip.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (B, T))
    return clip, clip.float().mean((1, 2))


def stretched_state(source: TimeSformer, target: TimeSformer, mode: str = "nearest") -> dict[str, Tensor]:
    """Return the weights of `source` with its embeddings stretched to the grid and clip length of `target`.

    The start of a fine-tuning at another resolution or number of frames. A separable embedding becomes a joint one as
    the sum of place and time; the way back has no answer, and the embedding is left out.

    Args:
        source, target: models of TimeSformer's family.
        mode: "nearest" as released, or "bicubic".
    """
    state = dict(source.state_dict())
    position, time = state.pop("pos_embed"), state.pop("time_embed", None)
    if source.position_embedding == target.position_embedding == "joint":
        state["pos_embed"] = resize_joint_embedding(position, (source.num_frames, *source.grid),
                                                    (target.num_frames, *target.grid), mode)
    elif source.position_embedding == "separable":
        position = resize_position_embedding(position, source.grid, target.grid, mode)
        time = resize_time_embedding(time, target.num_frames, mode) if time is not None else None
        if target.position_embedding == "separable":
            state |= {"pos_embed": position} | ({"time_embed": time} if time is not None else {})
        elif time is not None:
            joint = position[:, None, 1:] + time[:, :, None]
            state["pos_embed"] = torch.cat((position[:, :1], joint.flatten(1, 2)), dim=1)
    return state


