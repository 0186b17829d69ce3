"""Start a TimeSformer, DirecFormer or SeViTAR from an image ViT, as both papers do (ImageNet-21K or
-1K).

Known layouts: timm (`blocks.0.attn.qkv`), transformers 4.x
(`encoder.layer.0.attention.attention.query`) and transformers 5.x (`layers.0.attention.q_proj`),
with or without a prefix `vit.`.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from marey.checkpoints.huggingface import local_copy, read_hf_tensors
from marey.checkpoints.pickled import read_pickled, state_of
from marey.checkpoints.report import LoadReport, load_exactly
from marey.errors import UserError
from marey.files import read_json
from marey.layers.position import resize_position_embedding
from marey.models.timesformer import TimeSformer

TABLE = (
    # transformers 4.x | 5.x -> timm, which are also our names
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_before\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (r"(?:encoder\.layer|layers)\.(\d+)\.layernorm_after\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (
        r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)",
        r"blocks.\1.attn.\2.\3",
    ),
    (r"layers\.(\d+)\.attention\.q_proj\.(weight|bias)", r"blocks.\1.attn.query.\2"),
    (r"layers\.(\d+)\.attention\.k_proj\.(weight|bias)", r"blocks.\1.attn.key.\2"),
    (r"layers\.(\d+)\.attention\.v_proj\.(weight|bias)", r"blocks.\1.attn.value.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"layers\.(\d+)\.attention\.o_proj\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"layers\.(\d+)\.mlp\.(fc1|fc2)\.(weight|bias)", r"blocks.\1.mlp.\2.\3"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
    (r"classifier\.(weight|bias)", r"head.\1"),
)


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return an image ViT's state dict by timm's names: q, k and v in one matrix, poolers
    unchanged."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        bare = name.removeprefix("vit.")
        for pattern, ours in TABLE:
            match = re.fullmatch(pattern, bare)
            if match:
                bare = match.expand(ours)
                break
        renamed[bare] = value
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [
            renamed.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")
        ]
        renamed[name.replace(".query.", ".qkv.")] = torch.cat(parts)
    return renamed


def initialise_from_vit(
    model: nn.Module, source: str | Path | dict[str, Tensor], *, resize: str = "bicubic"
) -> LoadReport:
    """Fill a video transformer from an image ViT: the image part as it is, `attn` and `norm1` also
    for the time part.

    The head is not taken; the position embedding is stretched if the patch grid differs. A joint
    position embedding takes the image's at every time. `temporal_fc` stays at zero, so at first the
    model is that ViT.

    Args:
        model: a `TimeSformer`, `DirecFormer` or `SeViTAR` with a linear stem.
        source: a file, a `transformers` folder, or a state dict.
        resize: "bicubic", or "nearest" as the released loader (which treats the grid as one row).

    Returns:
        The report: missing tensors keep their initial values (heads, time embedding,
            `temporal_fc`).

    Raises:
        UserError: if the file is no ViT of this width and depth.
    """
    if not isinstance(model, TimeSformer) or model.config.stem != "linear":
        raise UserError(
            "an image ViT can start a TimeSformer, DirecFormer or SeViTAR with stem='linear' only"
        )
    where = "the given weights" if isinstance(source, dict) else source
    state = timm_names(source if isinstance(source, dict) else read_vit(source))
    if "pos_embed" not in state or "blocks.0.attn.qkv.weight" not in state:
        raise UserError(f"{where}: not an image ViT (it starts with {', '.join(list(state)[:3])})")
    state = {
        name: value
        for name, value in state.items()
        if not name.startswith(("head.", "pooler.", "fc_norm."))
    }
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    position = resize_position_embedding(
        state["pos_embed"], (side, side), model.config.grid, resize
    )
    if model.config.position_embedding == "joint":
        position = torch.cat(
            (position[:, :1], position[:, 1:].repeat(1, model.config.num_frames, 1)), dim=1
        )
    state["pos_embed"] = position
    # As in the released code, attention over time starts as a copy of attention over space.
    if model.config.attention == "divided":
        for name in [name for name in state if re.match(r"blocks\.\d+\.(attn|norm1)\.", name)]:
            state[re.sub(r"\.(attn|norm1)\.", r".temporal_\1.", name)] = state[name].clone()
    fresh = ("head.", "order.", "order_norm.", "semantic_mlp.", "class_mlp.", "time_embed")
    blocks = tuple(f"blocks.{index}.temporal_fc." for index in range(len(model.blocks)))
    return load_exactly(model, state, where, allow_missing=fresh + blocks)


IMAGENET_VIT = "hf:google/vit-base-patch16-224"
"""What "vit" stands for: ViT-B/16 of ImageNet-21K and -1K, the start of the released DirecFormer
and TimeSformer."""


def is_image_vit(source: str) -> bool:
    """Tell whether a checkpoint's name means an image ViT in the layout of `transformers`: "vit",
    a folder, or "hf:<hub id or folder>".

    Raises:
        UserError: if a hub id can neither be found here nor be fetched.
    """
    if source == "vit":
        return True
    is_hub = source.startswith("hf:")
    folder = local_copy(source.removeprefix("hf:")) if is_hub else Path(source)
    config = folder / "config.json"
    return config.is_file() and read_json(config).get("model_type") == "vit"


def start_from_vit(source: str) -> nn.Module:
    """Return a TimeSformer of an image ViT's size with its weights, to start a video model from.

    Args:
        source: for which `is_image_vit` holds.

    Raises:
        UserError: if the weights are missing or of another layout.
    """
    folder = local_copy((IMAGENET_VIT if source == "vit" else source).removeprefix("hf:"))
    config, state = read_json(folder / "config.json"), timm_names(read_hf_tensors(folder))
    model = TimeSformer(
        num_classes=0,
        image_size=config.get("image_size", 224),
        patch_size=config.get("patch_size", 16),
        embed_dim=config.get("hidden_size", 768),
        depth=config.get("num_hidden_layers", 12),
        num_heads=config.get("num_attention_heads", 12),
        mlp_ratio=config.get("intermediate_size", 3072) / config.get("hidden_size", 768),
        qkv_bias=config.get("qkv_bias", True),
    )
    initialise_from_vit(model, state)
    return model


def read_vit(source: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a ViT file or of a `transformers` folder."""
    path = Path(str(source).removeprefix("hf:"))
    if path.is_dir() or str(source).startswith("hf:"):
        return read_hf_tensors(local_copy(str(source).removeprefix("hf:")))
    return state_of(read_pickled(path), path)
