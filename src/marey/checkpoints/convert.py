"""Convert a public checkpoint to our folder format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marey.checkpoints.folder import Checkpoint, numbered_classes, save_checkpoint
from marey.checkpoints.i3d import read_i3d
from marey.checkpoints.load import load_hf
from marey.checkpoints.sources import CONFIG
from marey.checkpoints.timesformer import load_released, released_stride, sizes_from_shapes
from marey.checkpoints.vit import initialise_from_vit, read_vit, timm_names
from marey.errors import UserError, unknown_name
from marey.files import DAMAGE
from marey.models import create_model
from marey.transforms.preprocess import Preprocess
from marey.video.sampling import ClipSampling

FORMATS = ("timesformer", "direcformer", "i3d", "hf", "vit")
"""What `--from` names: original TimeSformer, released DirecFormer, I3D's `rgb_imagenet.pt`,
transformers, image ViT."""


def read_class_names(path: str | Path) -> list[str]:
    """Read class names: one per line, or JSON as a list, {"name": index} or {index: "name"}.

    Raises:
        UserError: if the file is absent or its indices are not 0 .. K-1.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file of class names") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names: Any = json.loads(text)
        if isinstance(names, dict):
            by_index = (
                {int(value): str(key).strip('"') for key, value in names.items()}
                if all(isinstance(value, int) for value in names.values())
                else {int(key): str(value) for key, value in names.items()}
            )
            names = [by_index[index] for index in range(len(by_index))]
        return [str(name) for name in names]
    except DAMAGE as error:
        raise UserError(
            f"{path}: expected a JSON list of names, or an object of names and indices 0 to K-1"
        ) from error


def read_foreign(
    file: str,
    form: str,
    *,
    num_heads: int | None = None,
    num_frames: int | None = None,
    class_names: list[str] | None = None,
    architecture: str = "timesformer",
    num_classes: int | None = None,
) -> tuple[Checkpoint, str]:
    """Read a checkpoint of a public format.

    Args:
        file: the file; for "hf" and "vit" also a folder or a hub id.
        form: one of `FORMATS`.
        num_heads: for "timesformer", "direcformer" and "vit".
        num_frames: T, for "vit", and for a TimeSformer of attention "space".
        class_names: name of each logit, where the file has none.
        architecture: for "vit", the video model to start.
        num_classes: for "vit".

    Returns:
        The checkpoint, and a sentence that counts the tensors filled.

    Raises:
        UserError: if the format is unknown or the file is not of it.
    """
    if form == "timesformer" or form == "direcformer":
        checkpoint = load_released(
            file,
            directed=form == "direcformer",
            num_heads=num_heads,
            num_frames=num_frames,
            class_names=class_names,
        )
    elif form == "hf":
        checkpoint = load_hf(file.removeprefix("hf:"))
    elif form == "i3d":
        checkpoint = _read_i3d(file, class_names)
    elif form == "vit":
        return _start_from_vit(
            file, architecture, num_heads, num_frames or 8, num_classes, class_names
        )
    else:
        raise unknown_name("checkpoint format", form, FORMATS)
    return checkpoint, f"all {len(checkpoint.model.state_dict())} tensors filled"


def _read_i3d(file: str, class_names: list[str] | None) -> Checkpoint:
    """I3D takes 25 fps, short side 256, crop 224, and x / 127.5 - 1: mean and standard deviation .5
    after / 255."""
    model = read_i3d(file)
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=64, stride_frames=1, target_fps=25.0),
        short_side=256,
        image_size=224,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    return Checkpoint(
        model=model,
        name="i3d",
        source=file,
        arguments=model.arguments,
        preprocess=preprocess,
        class_names=class_names or numbered_classes(model),
    )


def _start_from_vit(
    file: str,
    architecture: str,
    num_heads: int | None,
    num_frames: int,
    num_classes: int | None,
    class_names: list[str] | None,
) -> tuple[Checkpoint, str]:
    """Build a video model of the ViT's size around its weights; heads keep their initial
    weights."""
    state = timm_names(read_vit(file))
    sizes = sizes_from_shapes(state, file)
    if num_heads is None:
        raise UserError(
            f"{file}: the number of heads is in no tensor's shape; give --num-heads (12 for ViT-B)"
        )
    if num_classes is None and class_names is None:
        raise UserError(
            "a video model started from an image ViT has a fresh head; give --num-classes or "
            "--class-names"
        )
    model = create_model(
        architecture,
        num_classes=num_classes or len(class_names or ()),
        num_frames=num_frames,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        embed_dim=sizes.embed_dim,
        depth=sizes.depth,
        num_heads=num_heads,
        mlp_ratio=sizes.mlp_ratio,
        qkv_bias=sizes.qkv_bias,
    )
    report = initialise_from_vit(model, state)
    preprocess = Preprocess(
        sampling=ClipSampling(num_frames=num_frames, stride_frames=released_stride(num_frames)),
        short_side=max(256, sizes.image_size),
        image_size=sizes.image_size,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    arguments: dict[str, Any] = model.arguments
    checkpoint = Checkpoint(
        model=model,
        name=architecture,
        source=file,
        arguments=arguments,
        preprocess=preprocess,
        class_names=class_names or numbered_classes(model),
    )
    return checkpoint, f"{report.summary()}; missing tensors are initialised and must be trained"


def write_converted(checkpoint: Checkpoint, out: str | Path, *, overwrite: bool = False) -> None:
    """Save a checkpoint that was read from another format.

    Raises:
        UserError: if there is a checkpoint already and `overwrite` is False.
    """
    if (Path(out) / CONFIG).exists() and not overwrite:
        raise UserError(
            f"{out}: there is a checkpoint already; choose another --out or add --overwrite"
        )
    save_checkpoint(
        out,
        checkpoint.model,
        class_names=checkpoint.class_names,
        preprocess=checkpoint.preprocess,
        calibration=checkpoint.calibration,
        extra=checkpoint.extra | {"converted_from": checkpoint.source},
        tensors=checkpoint.tensors,
    )
