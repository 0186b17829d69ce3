"""The model a run starts from: fresh, or with the weights of a checkpoint wherever they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from marey.checkpoints.encoders import LoadedEncoder, load_encoder
from marey.checkpoints.load import load_checkpoint
from marey.checkpoints.sources import CONFIG
from marey.checkpoints.vit import is_image_vit, start_from_vit
from marey.errors import UserError
from marey.layers.efficientnet_lite import load_imagenet_stem
from marey.models import MODELS, argument_names, create_model
from marey.models.action_transformer import ActionTransformer
from marey.models.encoders import encoder_name
from marey.models.i3d import I3D
from marey.models.timesformer import TimeSformer, stretched_state
from marey.training.config import TrainConfig
from marey.training.task import Task


def initial_model(
    config: TrainConfig, task: Task, *, fresh: bool = True, say: Callable[[str], None] = print
) -> nn.Module:
    """Build the model of a run.

    Arguments come, from weak to strong, from the checkpoint of `model.init_from`, the task, and
    `model.arguments`.

    Args:
        fresh: False on resume, where all weights come from the resume state.
        say: where a sentence about what was loaded goes.

    Raises:
        UserError: if neither a model nor a checkpoint is named, or nothing of the checkpoint fits.
    """
    settings = config.model
    start, image_start, encoder = None, None, None
    if settings.init_from is not None:
        if settings.name == "probe" and not Path(settings.init_from, CONFIG).is_file():
            encoder = load_encoder(settings.init_from)
            _check_preprocess(config, encoder)
        elif is_image_vit(settings.init_from):
            image_start = start_from_vit(settings.init_from)
        else:
            start = load_checkpoint(settings.init_from)
    name = settings.name or (start.name if start is not None else None)
    if name is None:
        raise UserError(
            "no model: set model.name to one of 'marey list models', or model.init_from to a "
            "checkpoint"
        )
    arguments: dict[str, Any] = (
        dict(start.arguments) if start is not None and start.name == name else {}
    )
    if encoder is not None:
        body: Any = encoder.encoder
        arguments = {"encoder": encoder_name(body), "encoder_arguments": body.arguments}
    arguments.update({**_accepted(name, task.model_arguments), **settings.arguments})
    if settings.activation_checkpointing:
        arguments["activation_checkpointing"] = settings.activation_checkpointing
    model = (
        task.build_model(arguments)
        if task.build_model is not None
        else create_model(name, **arguments)
    )
    if encoder is not None:
        part: Any = model.encoder
        part.requires_grad_(True)  # `model.freeze` says what stays as it is
        if fresh:
            part.load_state_dict(encoder.encoder.state_dict())
            say(f"{encoder.source}: the whole encoder loaded; fresh: head")
    if fresh and settings.start == "glorot":
        widen_start(model)
    if fresh and settings.imagenet_stem:
        fill_stem(model)
    if start is not None and fresh:
        other_classes = tuple(start.class_names or ()) != tuple(task.class_names)
        say(
            copy_weights(
                start.model,
                model,
                settings.init_from or "",
                skip_classes=len(start.class_names or ()) if other_classes else None,
            )
        )
    if image_start is not None and fresh:
        say(copy_weights(image_start, model, settings.init_from or ""))
    return model


def _check_preprocess(config: TrainConfig, encoder: LoadedEncoder) -> None:
    """Check that clips are made as the encoder was trained.

    Raises:
        UserError: if they are not, with the settings that make them so.
    """
    have, wanted = config.data.preprocess, encoder.preprocess
    if have is None:
        return
    asked = {
        "data.preprocess.sampling.num_frames": (
            have.sampling.num_frames,
            wanted.sampling.num_frames,
        ),
        "data.preprocess.image_size": (have.image_size, wanted.image_size),
        "data.preprocess.mean": (list(have.mean), list(wanted.mean)),
        "data.preprocess.std": (list(have.std), list(wanted.std)),
    }
    differing = {key: right for key, (own, right) in asked.items() if own != right}
    if differing:
        words = " ".join(f"--set '{key}={right}'" for key, right in differing.items())
        raise UserError(
            f"model.init_from={encoder.source} reads other clips than this recipe makes; "
            f"add {words}"
        )


def _accepted(name: str, inferred: dict[str, Any]) -> dict[str, Any]:
    """Return the inferred arguments that the architecture takes; a convolution, for example, takes
    no num_frames."""
    if name not in MODELS:
        return dict(inferred)
    known = argument_names(name)
    return {key: value for key, value in inferred.items() if key in known}


def copy_weights(
    source: nn.Module, target: nn.Module, name: str, *, skip_classes: int | None = None
) -> str:
    """Copy every tensor of `source` that `target` has under the same name and shape; returns a
    sentence about it.

    TimeSformer's family gets its position and time embeddings stretched (nearest) to the target's
    clip first. The blocks of an I3D above the trunk become the I3D head of an Action Transformer.

    Args:
        skip_classes: number of outputs of the source's class head. Its last layer is left out,
            because it belongs to other classes even where the shape fits.

    Raises:
        UserError: if nothing fits.
    """
    stretches = isinstance(source, TimeSformer) and isinstance(target, TimeSformer)
    have = stretched_state(source, target) if stretches else source.state_dict()
    if isinstance(source, I3D) and isinstance(target, ActionTransformer):
        have = {_place_in_detector(key): value for key, value in have.items()}
    wanted = target.state_dict()
    fits = {
        key: value
        for key, value in have.items()
        if key in wanted
        and wanted[key].shape == value.shape
        and not (key.split(".")[0] in ("head", "class_mlp") and value.shape[0] == skip_classes)
    }
    if not fits:
        raise UserError(
            f"model.init_from={name}: no tensor fits this model; use the architecture of the "
            "checkpoint"
        )
    target.load_state_dict(fits, strict=False)
    fresh = sorted(set(wanted) - set(fits))
    if not fresh:
        return f"{name}: all {len(fits)} tensors loaded"
    roots = ", ".join(sorted({key.split(".")[0] for key in fresh}))
    return f"{name}: {len(fits)} of {len(wanted)} tensors loaded; fresh: {roots}"


def _place_in_detector(key: str) -> str:
    """Return where a tensor of an I3D goes in an `ActionTransformer`: Mixed_5a to 5c are its head
    (Sec. 3.3)."""
    return f"i3d.{key}" if key.startswith("tail.") else key


def fill_stem(model: nn.Module, *, whole: bool = False) -> None:
    """Give the stem's image network ImageNet weights, from the package that carries them or from
    `marey-mini-rgb`.

    Args:
        whole: where convolutions stand beside the image network, give them `marey-mini-rgb`'s.

    Raises:
        UserError: if they are of another width.
    """
    target: Any = model.patch_embed.trunk  # type: ignore[union-attr]
    if whole and hasattr(target, "convs"):
        own = load_checkpoint("marey-mini-rgb").model
        wanted, have = model.arguments["embed_dim"], own.arguments["embed_dim"]  # type: ignore[index]
        if wanted != have:
            raise UserError(
                f"the convolutions of marey-mini-rgb have model.arguments.embed_dim={have}, not "
                f"{wanted}; take {have}, or name other weights in model.init_from"
            )
        target.load_state_dict(own.patch_embed.trunk.state_dict())  # type: ignore[union-attr,operator]
        return
    try:
        load_imagenet_stem(model)
    except UserError:
        source: Any = load_checkpoint("marey-mini-rgb").model.patch_embed.trunk  # type: ignore[union-attr]
        getattr(target, "image", target).load_state_dict(
            getattr(source, "image", source).state_dict()
        )


def widen_start(model: nn.Module) -> None:
    """Draw the weights of blocks and heads again by Glorot's rule, and time embedding and temporal
    projection not zero.

    ViT's standard deviation of .02 suits widths near 768. At width 128 it is a quarter of Glorot's,
    and with temporal projection and time embedding at zero a short training does not learn to use
    time (held-out accuracy after 150
    steps: 0.29, against 0.39).
    """
    parts = [getattr(model, name, None) for name in ("blocks", "class_mlp", "semantic_mlp")]
    for part in parts:
        if not isinstance(part, nn.Module):
            continue
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    for name, std in (("time_embed", 0.5), ("pos_embed", 0.2), ("cls_token", 0.5)):
        if isinstance(getattr(model, name, None), nn.Parameter):
            nn.init.normal_(getattr(model, name), std=std)
