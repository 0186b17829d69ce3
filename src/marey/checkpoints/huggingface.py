"""Read and write TimeSformer in the layout of `transformers`."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file
from torch import Tensor, nn

from marey.checkpoints.folder import Checkpoint, build_and_fill, read_tensors
from marey.checkpoints.pickled import read_pickled
from marey.checkpoints.timesformer import released_stride
from marey.errors import UserError
from marey.files import atomic_files, read_json, write_json
from marey.models.timesformer import TimeSformer
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

ATTENTION_TYPES = {
    "divided_space_time": "divided",
    "joint_space_time": "joint",
    "space_only": "space",
}

HF_ARGUMENTS = {
    "attention": ("divided", "joint"),
    "time_attention": ("softmax",),
    "space_attention": ("softmax",),
    "cls_in_time": (False,),
    "stem": ("linear",),
    "position_embedding": ("separable",),
}
"""Settings of our TimeSformer that this layout can hold."""

NAMES = (
    # ours, theirs; "blocks.<i>." goes with "timesformer.encoder.layer.<i>."
    ("cls_token", "timesformer.embeddings.cls_token"),
    ("pos_embed", "timesformer.embeddings.position_embeddings"),
    ("time_embed", "timesformer.embeddings.time_embeddings"),
    ("patch_embed.proj", "timesformer.embeddings.patch_embeddings.projection"),
    ("norm", "timesformer.layernorm"),
    ("head", "classifier"),
)
BLOCK_NAMES = (
    ("norm1", "layernorm_before"),
    ("attn.qkv", "attention.attention.qkv"),
    ("attn.proj", "attention.output.dense"),
    ("temporal_norm1", "temporal_layernorm"),
    ("temporal_attn.qkv", "temporal_attention.attention.qkv"),
    ("temporal_attn.proj", "temporal_attention.output.dense"),
    ("temporal_fc", "temporal_dense"),
    ("norm2", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense"),
    ("mlp.fc2", "output.dense"),
)


def to_hf_name(name: str) -> str:
    """Return the name `transformers` gives to one of our parameters."""
    block = re.match(r"blocks\.(\d+)\.(.+)", name)
    prefix, rest, table = (
        ("", name, NAMES)
        if block is None
        else (f"timesformer.encoder.layer.{block[1]}.", block[2], BLOCK_NAMES)
    )
    for ours, theirs in table:
        if rest == ours or rest.startswith(ours + "."):
            return prefix + theirs + rest[len(ours) :]
    raise UserError(f"'{name}' does not exist in the transformers layout of TimeSformer")


def from_hf_name(name: str) -> str:
    """Return our name of a parameter in the `transformers` layout; an unknown name is returned as
    it is."""
    block = re.match(r"(?:timesformer\.)?encoder\.layer\.(\d+)\.(.+)", name)
    prefix, rest, table = (
        ("", name, NAMES) if block is None else (f"blocks.{block[1]}.", block[2], BLOCK_NAMES)
    )
    for ours, theirs in table:
        for candidate in (theirs, theirs.removeprefix("timesformer.")):
            if rest == candidate or rest.startswith(candidate + "."):
                return prefix + ours + rest[len(candidate) :]
    return name


def local_copy(source: str) -> Path:
    """Return the folder of a hub id or of a local copy.

    Raises:
        UserError: if it is neither on this machine nor reachable.
    """
    if Path(source).is_dir():
        return Path(source)
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise UserError(f"hf:{source}: no such folder, and not a hub id of the form owner/name")
    patterns = [
        "config.json",
        "*preprocessor_config.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "tokenizer*",  # of models that read text
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
    ]
    try:
        folder = Path(snapshot_download(source, allow_patterns=patterns))
        if not any(folder.glob("*.safetensors")):
            patterns += ["pytorch_model*.bin", "*.bin.index.json"]
            folder = Path(snapshot_download(source, allow_patterns=patterns))
        return folder
    except RepositoryNotFoundError as error:
        raise UserError(
            f"hf:{source}: no such model on the hub (or it needs a login); check the id"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"hf:{source}: not on this machine and the hub cannot be reached "
            f"({type(error).__name__}); download it elsewhere and give the folder: hf:PATH"
        ) from error


def read_hf_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a `transformers` folder: safetensors first, shards too; else `.bin`, with
    a notice.

    Raises:
        UserError: if there are none, or a shard is missing.
    """
    for single, index, read in (
        ("model.safetensors", "model.safetensors.index.json", read_tensors),
        ("pytorch_model.bin", "pytorch_model.bin.index.json", read_pickled),
    ):
        if (folder / single).is_file():
            files = [folder / single]
        elif (folder / index).is_file():
            files = [
                folder / name
                for name in sorted(set(read_json(folder / index)["weight_map"].values()))
            ]
        else:
            continue
        if read is read_pickled:
            warnings.warn(
                f"{folder}: no safetensors, reading {files[0].name} as weights only", stacklevel=2
            )
        return {name: value for file in files for name, value in read(file).items()}
    raise UserError(
        f"{folder}: neither model.safetensors nor pytorch_model.bin; is the download complete?"
    )


def preprocess_from_hf(
    folder: Path,
    *,
    num_frames: int,
    stride_frames: int,
    image_size: int,
    spacing: str = "stride",
) -> Preprocess:
    """Translate `preprocessor_config.json`; without one, take TimeSformer's mean .45 and std .225,
    with a notice.

    Args:
        folder: of the checkpoint.
        num_frames, stride_frames: sampling, which that file does not hold.
        image_size: crop of the model, in pixels.
        spacing: as of `ClipSampling`; "linspace" for what TimeSformer's released code decodes.
    """
    sampling = ClipSampling(
        num_frames=num_frames, stride_frames=stride_frames, target_fps=30.0, spacing=spacing
    )
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        warnings.warn(
            f"{folder}: no preprocessor_config.json, taking mean .45, standard deviation .225, "
            f"short side {image_size}",
            stacklevel=2,
        )
        return Preprocess(sampling=sampling, short_side=image_size, image_size=image_size)
    values = read_json(path)
    size = values.get("size", image_size)
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = values.get("crop_size", image_size)
    crop = crop if isinstance(crop, int) else crop.get("height", image_size)
    if not values.get("do_center_crop", True) or crop != image_size:
        crop = image_size
    stretch = "shortest_edge" not in size and "height" in size
    normalises = values.get("do_normalize", True)
    return Preprocess(
        sampling=sampling,
        image_size=crop,
        short_side=max(crop, int(size.get("shortest_edge", crop))),
        resize_mode="stretch" if stretch else "short_side",
        interpolation={0: "nearest", 3: "bicubic"}.get(values.get("resample", 2), "bilinear"),
        rescale=float(values.get("rescale_factor", 1 / 255))
        if values.get("do_rescale", True)
        else 1.0,
        mean=tuple(values.get("image_mean", (0.45,) * 3)) if normalises else (0.0,) * 3,
        std=tuple(values.get("image_std", (0.225,) * 3)) if normalises else (1.0,) * 3,
    )


def load_hf_timesformer(folder: Path, config: dict[str, Any], source: str) -> Checkpoint:
    """Load a TimeSformer of the `transformers` layout as our own model.

    Args:
        folder: of the checkpoint.
        config: its `config.json`.
        source: the checkpoint's name in messages.

    Raises:
        UserError: if the config asks for what our TimeSformer does not have, or the weights do not
            fit it.
    """
    state = {from_hf_name(name): value.float() for name, value in read_hf_tensors(folder).items()}
    arguments = arguments_from_hf(
        config, folder, num_classes=state["head.weight"].shape[0] if "head.weight" in state else 0
    )
    model = build_and_fill("timesformer", arguments, state, folder).eval()
    labels = {int(index): label for index, label in (config.get("id2label") or {}).items()}
    num_classes = arguments["num_classes"]
    class_names = [str(labels.get(index, f"class {index}")) for index in range(num_classes)]
    preprocess = preprocess_from_hf(
        folder,
        num_frames=arguments["num_frames"],
        image_size=arguments["image_size"],
        stride_frames=released_stride(arguments["num_frames"]),
        spacing="linspace",
    )
    return Checkpoint(
        model=model,
        name="timesformer",
        source=source,
        arguments=model.arguments,
        class_names=class_names,
        preprocess=preprocess,
    )


def arguments_from_hf(config: dict[str, Any], folder: Path, num_classes: int) -> dict[str, Any]:
    """Translate a `TimesformerConfig`, whose absent keys have the base model's values.

    Raises:
        UserError: if the config asks for another activation, epsilon or number of channels than
            TimeSformer's.
    """
    for key, expected in (("hidden_act", "gelu"), ("num_channels", 3)):
        if config.get(key, expected) != expected:
            raise UserError(
                f"{folder}: {key} is {config[key]!r}, but this TimeSformer has {expected!r} only"
            )
    if abs(float(config.get("layer_norm_eps", 1e-6)) - 1e-6) > 1e-7:
        raise UserError(
            f"{folder}: layer_norm_eps is {config['layer_norm_eps']}, but this TimeSformer has "
            "1e-6 only"
        )
    size, patch, width = (
        config.get("image_size", 224),
        config.get("patch_size", 16),
        config.get("hidden_size", 768),
    )
    size, patch = (value if isinstance(value, int) else value[0] for value in (size, patch))
    return {
        "num_classes": num_classes,
        "num_frames": config.get("num_frames", 8),
        "image_size": size,
        "patch_size": patch,
        "embed_dim": width,
        "depth": config.get("num_hidden_layers", 12),
        "num_heads": config.get("num_attention_heads", 12),
        "mlp_ratio": config.get("intermediate_size", 3072) / width,
        "qkv_bias": config.get("qkv_bias", True),
        "attention": ATTENTION_TYPES[config.get("attention_type", "divided_space_time")],
        "drop_path": float(config.get("drop_path_rate", 0)),
    }


def save_hf(
    folder: str | Path,
    model: nn.Module,
    *,
    class_names: list[str] | None = None,
    preprocess: Preprocess | None = None,
) -> None:
    """Write a folder that `TimesformerForVideoClassification.from_pretrained` loads with equal
    logits.

    Stochastic depth is not written: transformers 5 takes whole numbers only there, and prediction
    has none.

    Args:
        folder: made if absent.
        model: a `TimeSformer` with softmax attention, linear stem and separable position embedding.
        class_names: for `id2label`.
        preprocess: for `preprocessor_config.json`.

    Raises:
        UserError: if the layout cannot hold the model, or the disk is full.
    """
    if type(model) is not TimeSformer:
        raise UserError(
            f"the transformers layout cannot hold a {type(model).__name__}; only a "
            "TimeSformer can be exported"
        )
    arguments = model.arguments
    for key, fitting in HF_ARGUMENTS.items():
        if arguments[key] not in fitting:
            raise UserError(
                f"this TimeSformer has {key}={arguments[key]!r}, which the transformers layout "
                f"cannot hold; it takes {fitting[0]!r}"
            )
    labels = class_names or [f"class {index}" for index in range(arguments["num_classes"])]
    theirs = {value: key for key, value in ATTENTION_TYPES.items()}
    config = {
        "architectures": ["TimesformerForVideoClassification"],
        "model_type": "timesformer",
        "image_size": arguments["image_size"],
        "patch_size": arguments["patch_size"],
        "num_channels": 3,
        "num_frames": arguments["num_frames"],
        "hidden_size": arguments["embed_dim"],
        "num_hidden_layers": arguments["depth"],
        "num_attention_heads": arguments["num_heads"],
        "intermediate_size": round(arguments["embed_dim"] * arguments["mlp_ratio"]),
        "hidden_act": "gelu",
        "hidden_dropout_prob": arguments["dropout"],
        "attention_probs_dropout_prob": arguments["attention_dropout"],
        "layer_norm_eps": 1e-6,
        "qkv_bias": arguments["qkv_bias"],
        "attention_type": theirs[arguments["attention"]],
        "drop_path_rate": 0,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
        "torch_dtype": "float32",
    }
    state = {
        to_hf_name(name): value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
    }
    processor = hf_preprocess(preprocess) if preprocess is not None else None
    folder = Path(folder)
    with atomic_files(folder / "model.safetensors", folder / "config.json") as (weights, settings):
        save_file(state, weights, metadata={"format": "pt"})
        settings.write_text(json.dumps(config, indent=2))
    if processor is not None:
        write_json(folder / "preprocessor_config.json", processor)


def hf_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    """Translate our preprocessing to a VideoMAE processor's config, as the public TimeSformers
    have; sampling is lost.

    Raises:
        UserError: if the channel order is BGR, which that processor does not support.
    """
    if preprocess.channel_order != "rgb":
        raise UserError(
            f"the preprocessing is {preprocess.channel_order.upper()}, which a transformers "
            "processor does not support; export with RGB preprocessing"
        )
    side = preprocess.image_size
    stretch = preprocess.resize_mode == "stretch"
    return {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "do_center_crop": True,
        "size": {"height": side, "width": side}
        if stretch
        else {"shortest_edge": preprocess.short_side},
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": preprocess.rescale,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "resample": {"nearest": 0, "bilinear": 2, "bicubic": 3}[preprocess.interpolation],
    }
