"""Load a clip encoder by its name: bundled, `hf:`, `torchvision:`.

load_encoder("frames")                       EfficientNet-Lite0 with ImageNet weights, bundled
load_encoder("hf:MCG-NJU/videomae-base")     a hub id or its folder, pretrained or fine-tuned
load_encoder("torchvision:swin3d_t")         torchvision's video models
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marey.checkpoints.external import STRIDE_FRAMES, load_torchvision
from marey.checkpoints.huggingface import local_copy, preprocess_from_hf
from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.recommended import SHORT_NAMES, long_name
from marey.errors import UserError, import_extra, unknown_name
from marey.files import read_json
from marey.layers.efficientnet_lite import LITE0_MEAN, LITE0_STD
from marey.models.external_encoder import (
    IMAGE_TYPES,
    ExternalEncoder,
    body_options,
    supported,
)
from marey.models.frame_statistics import FrameStatistics
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

BUNDLED = ("frames",)
"""Encoders that come with the package."""


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An encoder with how a video becomes its input."""

    encoder: nn.Module
    """In evaluation mode: clip -> {"tokens" (B, L, D), "embedding" (B, E)}."""
    preprocess: Preprocess
    """How a video becomes its input."""
    source: str
    """What it was loaded as."""


def load_encoder(source: str) -> LoadedEncoder:
    """Load a clip encoder with its preprocessing. All weights of its body must be found.

    Args:
        source: "frames", a short name of `PUBLIC_MODELS`, "hf:<hub id or folder>", or
            "torchvision:<model>[@FILE]".

    Raises:
        UserError: if there is no such encoder, or weights are missing.
    """
    source = long_name(source)
    if source.startswith("hf:"):
        return _load_hf(source)
    if source.startswith("torchvision:"):
        return _load_torchvision(source)
    if source == "frames":
        return LoadedEncoder(
            encoder=bundled_frames(), preprocess=frames_preprocess(), source=source
        )
    if Path(source).is_dir() and "model_type" in read_json(Path(source) / "config.json"):
        return _load_hf(f"hf:{source}")
    raise unknown_name(
        "encoder",
        source,
        (*BUNDLED, *SHORT_NAMES, "hf:<hub id or folder>", "torchvision:<model>"),
    )


def bundled_frames(**arguments: Any) -> FrameStatistics:
    """Return `FrameStatistics` with the ImageNet weights that `marey-mini-rgb` carries in half
    precision."""
    encoder = FrameStatistics(**arguments)
    bundled: Any = load_checkpoint("marey-mini-rgb").model
    encoder.trunk.load_state_dict(bundled.patch_embed.trunk.image.state_dict())
    return encoder.eval()


def frames_preprocess(num_frames: int = 8, image_size: int = 160) -> Preprocess:
    """Return frames at 4 per second from the middle of a video, the whole picture stretched to one
    size: neither its shape nor its length is visible in the input."""
    sampling = ClipSampling(
        num_frames=num_frames, stride_frames=1, target_fps=4.0, view_start="offset"
    )
    return Preprocess(
        sampling=sampling,
        short_side=image_size,
        image_size=image_size,
        resize_mode="stretch",
        mean=LITE0_MEAN,
        std=LITE0_STD,
    )


def _load_hf(source: str) -> LoadedEncoder:
    folder = local_copy(source.removeprefix("hf:"))
    config = read_json(folder / "config.json")
    kind = supported(config, source)
    library = import_extra("transformers", "hf", f"loading {source}")
    try:
        net, report = library.AutoModel.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, **body_options(kind)
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{source}: transformers cannot load it: {str(error).splitlines()[0]}"
        ) from error
    # Keys of a head or a decoder are left over; a key missing from the body would stay random.
    for problem in ("missing_keys", "mismatched_keys"):
        if report.get(problem):
            names = ", ".join(sorted(map(str, report[problem]))[:3])
            raise UserError(
                f"{source}: {problem.replace('_', ' ')} ({len(report[problem])}): {names}; the "
                "encoder would be partly random, so download the whole folder again"
            )
    encoder = ExternalEncoder("transformers", net.config.to_dict())
    encoder.net = net.eval()
    return LoadedEncoder(
        encoder=encoder.eval(), preprocess=_hf_preprocess(folder, encoder, kind), source=source
    )


def _hf_preprocess(folder: Path, encoder: ExternalEncoder, kind: str) -> Preprocess:
    T = encoder.num_frames
    preprocess = preprocess_from_hf(
        folder,
        num_frames=T,
        stride_frames=STRIDE_FRAMES.get(kind, 1),
        image_size=encoder.image_size,
    )
    if kind in IMAGE_TYPES:
        sampling = ClipSampling(num_frames=T, stride_frames=1, target_fps=4.0, view_start="offset")
        preprocess = replace(preprocess, sampling=sampling)
    elif kind not in STRIDE_FRAMES:
        preprocess = replace(preprocess, sampling=ClipSampling(kind="equidistant", num_frames=T))
    path = folder / "preprocessor_config.json"
    # ViViT: x * scale - 1, then (x - mean) / std, which is (x * scale - (mean + 1)) / std.
    if path.is_file() and read_json(path).get("offset") and read_json(path).get("do_rescale", True):
        red, green, blue = preprocess.mean
        preprocess = replace(preprocess, mean=(red + 1, green + 1, blue + 1))
    return preprocess


def _load_torchvision(source: str) -> LoadedEncoder:
    checkpoint = load_torchvision(source.removeprefix("torchvision:"))
    trained: Any = checkpoint.model
    encoder = ExternalEncoder("torchvision", trained.arguments["config"])
    net = trained.net
    if hasattr(net, "classifier"):
        net.classifier = nn.Identity()
    encoder.net = net
    return LoadedEncoder(
        encoder=encoder.eval(), preprocess=checkpoint.clip_preprocess, source=source
    )
