"""Readers of video classifiers of `transformers` and torchvision, with their own preprocessing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from marey.checkpoints.folder import Checkpoint, read_tensors
from marey.checkpoints.huggingface import preprocess_from_hf
from marey.checkpoints.pickled import read_pickled
from marey.checkpoints.report import load_exactly
from marey.errors import UserError, import_extra, unknown_name
from marey.files import read_json
from marey.models.external import TORCHVISION_CLIPS, ExternalClassifier
from marey.models.text_video import TextVideoModel
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

STRIDE_FRAMES = {"videomae": 4, "vivit": 2}
"""Frame stride at 30 fps of published `transformers` checkpoints; other kinds spread their frames
over the video."""


def load_hf_external(folder: Path, config: dict[str, Any], source: str) -> Checkpoint:
    """Load a video classifier of `transformers` from a local folder, with its own preprocessing.

    Keys renamed between versions of that library are mapped by the library itself. An unexpected or
    a missing key is an error and not a warning.

    Raises:
        UserError: if the folder is no video classifier, or its weights do not fit.
    """
    library = import_extra("transformers", "hf", f"loading {source}")
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES as KINDS,
    )

    if config.get("model_type") not in KINDS:
        raise UserError(
            f"{source}: model type '{config.get('model_type')}' is no video classifier of "
            f"transformers (it has: {', '.join(KINDS)}); an encoder learns your classes with "
            f"'marey teach DIR --encoder {source} --out MODEL'"
        )
    try:
        net, report = library.AutoModelForVideoClassification.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{source}: transformers cannot load it: {str(error).splitlines()[0]}"
        ) from error
    for problem in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if report.get(problem):
            names = ", ".join(sorted(map(str, report[problem]))[:3])
            raise UserError(
                f"{source}: {problem.replace('_', ' ')} ({len(report[problem])}): {names}; the "
                "folder is another architecture, or its classifier was never trained; an encoder "
                f"learns your classes with 'marey teach DIR --encoder {source} --out MODEL'"
            )
    model = ExternalClassifier(
        "transformers", json.loads(net.config.to_json_string(use_diff=False))
    )
    model.net = net
    labels = {int(index): str(label) for index, label in (net.config.id2label or {}).items()}
    return Checkpoint(
        model=model.eval(),
        name="external",
        source=source,
        arguments=model.arguments,
        class_names=[labels.get(k, f"class {k}") for k in range(model.arguments["num_classes"])],
        preprocess=_hf_preprocess(folder, model, str(config["model_type"])),
    )


def load_hf_text_video(folder: Path, config: dict[str, Any], source: str) -> Checkpoint:
    """Load an X-CLIP folder with its tokenizer, to rank names for videos.

    Raises:
        UserError: if weights or the tokenizer are missing.
    """
    library = import_extra("transformers", "hf", f"loading {source}")
    try:
        net, report = library.AutoModel.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32
        )
        tokenizer = library.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{source}: transformers cannot load it: {str(error).splitlines()[0]}"
        ) from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise UserError(
            f"{source}: missing keys ({len(missing)}): {', '.join(missing[:3])}; the folder is "
            "incomplete, fetch it again"
        )
    model = TextVideoModel(net, tokenizer)
    return Checkpoint(
        model=model.eval(),
        name="text_video",
        source=source,
        arguments=model.arguments,
        class_names=[],
        preprocess=_hf_preprocess(folder, model, str(config["model_type"])),
    )


def _hf_preprocess(
    folder: Path, model: ExternalClassifier | TextVideoModel, kind: str
) -> Preprocess:
    """Translate the folder's processor: ViViT's offset (x * scale - 1 before mean and std) becomes
    part of the mean."""
    T, S = model.num_frames, model.arguments["image_size"]
    preprocess = preprocess_from_hf(
        folder, num_frames=T, stride_frames=STRIDE_FRAMES.get(kind, 1), image_size=S
    )
    path = folder / "preprocessor_config.json"
    # ViViT: x * scale - 1, then (x - mean) / std, which is (x * scale - (mean + 1)) / std.
    if path.is_file() and read_json(path).get("offset") and read_json(path).get("do_rescale", True):
        preprocess = replace(
            preprocess,
            mean=(preprocess.mean[0] + 1, preprocess.mean[1] + 1, preprocess.mean[2] + 1),
        )
    if kind not in STRIDE_FRAMES:
        preprocess = replace(preprocess, sampling=ClipSampling(kind="equidistant", num_frames=T))
    return preprocess


def load_torchvision(name: str) -> Checkpoint:
    """Load one of torchvision's video classifiers with its published Kinetics-400 weights.

    The published preprocessing of the ResNets squeezes frames to 128 x 171 before the crop; ours
    keeps the aspect and resizes the short side to 128, which is the same for frames of 3:4.

    Args:
        name: e.g. "swin3d_t"; "swin3d_t@FILE" takes the weights from a `.safetensors` or `.pth`
            file.

    Raises:
        UserError: if the name is unknown, or the weights can be neither found nor downloaded.
    """
    name, _, file = name.partition("@")
    if name not in TORCHVISION_CLIPS:
        raise unknown_name("torchvision model", name, TORCHVISION_CLIPS)
    weights = get_model_weights(name).DEFAULT
    state = _read_state(file) if file else _download(name, weights)
    state = _our_keys(state)
    num_classes = next(
        (
            len(value)
            for key, value in state.items()
            if key.startswith(("head.", "net.classifier.")) and key.endswith("bias")
        ),
        None,
    )
    model = ExternalClassifier("torchvision", {"name": name}, num_classes=num_classes)
    load_exactly(model, state, f"torchvision:{name}")
    transform = weights.transforms()
    frames, stride = TORCHVISION_CLIPS[name]
    preprocess = Preprocess(
        sampling=ClipSampling(
            num_frames=frames, stride_frames=stride, target_fps=30.0, view_start="offset"
        ),
        short_side=transform.resize_size[0],
        image_size=transform.crop_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )
    num_classes = model.arguments["num_classes"]
    names = weights.meta["categories"] if num_classes == len(weights.meta["categories"]) else None
    return Checkpoint(
        model=model.eval(),
        name="external",
        source=f"torchvision:{name}",
        arguments=model.arguments,
        class_names=list(names or (f"class {k}" for k in range(num_classes))),
        preprocess=preprocess,
    )


def _our_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return torchvision's keys as ours: the last layer is `head`, the rest is `net`."""
    return {
        "head." + key.partition(".")[2] if key.startswith(("fc.", "head.")) else f"net.{key}": value
        for key, value in state.items()
    }


def _read_state(file: str) -> dict[str, Tensor]:
    path = Path(file)
    return read_tensors(path) if path.suffix == ".safetensors" else read_pickled(path)


def _download(name: str, weights: Any) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise UserError(
            f"torchvision:{name}: its weights are not on this machine and cannot be downloaded "
            f"({error}); fetch them elsewhere and write torchvision:{name}@FILE"
        ) from error
