"""Read checkpoints of the original TimeSformer (`.pyth`) and of the released DirecFormer.

Our parameters carry the same names, so the work is finding the sizes. They come from the tensors'
shapes; the number of heads is in no shape, so it comes from the file's own config or from the
caller, and is never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from marey.checkpoints.folder import Checkpoint, build_and_fill, numbered_classes
from marey.checkpoints.pickled import read_pickled, state_of
from marey.errors import UserError
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

HEADS_OF_MODEL = {"vit_base_patch16_224": 12, "TimeSformer": 12, "DirecFormer": 12}
"""MODEL.MODEL_NAME of the released configs -> heads, which the released code fixes per name."""


@dataclass(frozen=True, kw_only=True)
class TimeSformerSizes:
    """The sizes that the shapes of a TimeSformer state dict determine."""

    num_classes: int
    num_frames: int | None
    """None for attention "space", which has no time embedding."""
    image_size: int
    patch_size: int
    embed_dim: int
    depth: int
    mlp_ratio: float
    attention: str
    qkv_bias: bool
    num_orders: int
    """0 without an order head."""


def sizes_from_shapes(state: dict[str, Tensor], source: str | Path) -> TimeSformerSizes:
    """Read every size that the shapes determine.

    Raises:
        UserError: if a tensor that every TimeSformer has is absent, or the patch grid is not
            square.
    """
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        if name not in state:
            some = ", ".join(list(state)[:3])
            raise UserError(
                f"{source}: not a TimeSformer: '{name}' is missing (the file starts with {some})"
            )
    embed_dim, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    num_patches = state["pos_embed"].shape[1] - 1
    side = round(num_patches**0.5)
    if side * side != num_patches:
        raise UserError(
            f"{source}: pos_embed has {num_patches} patches, which is no square grid; "
            "only square TimeSformers can be read"
        )
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    has_time = "time_embed" in state
    divided = "blocks.0.temporal_attn.qkv.weight" in state
    return TimeSformerSizes(
        num_classes=state["head.weight"].shape[0] if "head.weight" in state else 0,
        num_frames=state["time_embed"].shape[1] if has_time else None,
        image_size=side * patch_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / embed_dim,
        attention="divided" if divided else "joint" if has_time else "space",
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        num_orders=state["order.weight"].shape[0] if "order.weight" in state else 0,
    )


def released_config(content: dict[str, Any]) -> dict[str, Any]:
    """Return the file's own config, a YAML text under "cfg", as nested dicts; empty if it has
    none."""
    text = content.get("cfg")
    if isinstance(text, dict):
        return text
    if not isinstance(text, str):
        return {}
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return config if isinstance(config, dict) else {}


def heads_from_config(config: dict[str, Any]) -> int | None:
    """Return the number of heads a released config implies, or None."""
    for section in ("TIMESFORMER", "DIRECFORMER", "MODEL"):
        heads = (config.get(section) or {}).get("NUM_HEADS")
        if isinstance(heads, int):
            return heads
    return HEADS_OF_MODEL.get(str((config.get("MODEL") or {}).get("MODEL_NAME")))


def preprocess_from_config(config: dict[str, Any], num_frames: int, image_size: int) -> Preprocess:
    """Return the released test preprocessing: the config's, else the paper's 8 x 32 at 30 fps, mean
    .45.

    The released decoder takes T points of equal distance from the first to the last of the clip's
    frames (`spacing="linspace"`: 0, 36, 72, ..., 255 of 256), not every 32nd as the paper's text
    reads. Something-Something V2 is sampled by segments and, as in the released loader, stays BGR.
    """
    data = config.get("DATA") or {}
    dataset = str(
        (config.get("TEST") or {}).get("DATASET")
        or (config.get("TRAIN") or {}).get("DATASET")
        or ""
    ).lower()
    if dataset in ("ssv2", "jester", "something"):
        sampling, order = ClipSampling(kind="segments", num_frames=num_frames), "bgr"
    else:
        stride = int(data.get("SAMPLING_RATE", released_stride(num_frames)))
        fps = float(data.get("TARGET_FPS", 30))
        sampling, order = (
            ClipSampling(
                num_frames=num_frames, stride_frames=stride, target_fps=fps, spacing="linspace"
            ),
            "rgb",
        )
    mean, std = data.get("MEAN", (0.45,) * 3), data.get("STD", (0.225,) * 3)
    return Preprocess(
        sampling=sampling,
        short_side=image_size,
        image_size=image_size,
        mean=tuple(mean),
        std=tuple(std),
        channel_order=order,
    )


def released_stride(num_frames: int) -> int:
    """Return the released distance between frames: 8 x 32 (base), 16 x 16 (HR), 96 x 4 (L); else
    about 256 / T."""
    return {8: 32, 16: 16, 96: 4}.get(num_frames, max(1, 256 // num_frames))


def load_released(
    path: str | Path,
    *,
    directed: bool = False,
    num_heads: int | None = None,
    num_frames: int | None = None,
    class_names: list[str] | None = None,
) -> Checkpoint:
    """Read an original TimeSformer file, or with `directed` a released DirecFormer.

    A released DirecFormer is cosine over time without the class token, softmax over space, one norm
    for both heads.

    Args:
        path: `.pyth`, `.pth` or `.safetensors`; a state dict, or one under "model_state",
            "state_dict" or "model".
        directed: build a DirecFormer.
        num_heads: heads; needed if the file has no config.
        num_frames: T, needed only for attention "space".
        class_names: name of each logit.

    Returns:
        The checkpoint; every tensor of the file is used.

    Raises:
        UserError: if the file is no such model, or the number of heads is unknown.
    """
    content = read_pickled(path)
    state, config = state_of(content, path), released_config(content)
    sizes = sizes_from_shapes(state, path)
    # No tensor's shape depends on the number of heads.
    heads = num_heads or heads_from_config(config)
    if heads is None:
        raise UserError(
            f"{path}: the number of heads is in no tensor's shape and this file has no config; "
            "give it (num_heads=12, --num-heads 12, for the base models)"
        )
    frames = sizes.num_frames or num_frames
    if frames is None:
        raise UserError(
            f"{path}: attention 'space' has no time embedding to count frames by; give num_frames"
        )
    arguments: dict[str, Any] = {
        "num_classes": sizes.num_classes,
        "num_frames": frames,
        "image_size": sizes.image_size,
        "patch_size": sizes.patch_size,
        "embed_dim": sizes.embed_dim,
        "depth": sizes.depth,
        "num_heads": heads,
        "mlp_ratio": sizes.mlp_ratio,
        "attention": sizes.attention,
        "qkv_bias": sizes.qkv_bias,
    }
    if directed:
        arguments |= {
            "num_orders": sizes.num_orders,
            "time_attention": "cosine",
            "space_attention": "softmax",
            "cls_in_time": False,
            "shared_norm": True,
        }
    elif sizes.num_orders:
        raise UserError(
            f"{path}: has an order head ('order.weight'); read it with --from direcformer"
        )
    name = "direcformer" if directed else "timesformer"
    model = build_and_fill(name, arguments, state, path).eval()
    return Checkpoint(
        model=model,
        name=name,
        source=str(path),
        arguments=model.arguments,
        class_names=class_names or numbered_classes(model),
        preprocess=preprocess_from_config(config, frames, sizes.image_size),
    )
