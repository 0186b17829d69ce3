"""Every architecture under its name.

A model is an `nn.Module` that takes plain keyword arguments, keeps them in `model.arguments` (JSON
types only, so a checkpoint can rebuild it), names its input in `model.task`, and returns
`model(clip) -> dict` as docs/conventions.md describes.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from torch import nn

from marey.errors import UserError, unknown_name
from marey.models.action_transformer import ActionTransformer
from marey.models.arrow_of_time import ArrowOfTime
from marey.models.direcformer import DirecFormer
from marey.models.external import ExternalClassifier
from marey.models.gat import GAT
from marey.models.grid_sevitar import GridSeViTAR
from marey.models.i3d import I3D
from marey.models.probe import Probe
from marey.models.sevitar import SeViTAR
from marey.models.stem_classifier import StemClassifier
from marey.models.timesformer import TimeSformer

MODELS: dict[str, type[nn.Module]] = {
    "timesformer": TimeSformer,
    "direcformer": DirecFormer,
    "sevitar": SeViTAR,
    "gat": GAT,
    "i3d": I3D,
    "stem_classifier": StemClassifier,
    "action_transformer": ActionTransformer,
    "external": ExternalClassifier,
    "probe": Probe,
    "arrow_of_time": ArrowOfTime,
}
READ_ONLY: dict[str, type[nn.Module]] = {"grid_sevitar": GridSeViTAR}
"""Models of older checkpoints, which load and answer but are not offered for training."""


def list_models() -> list[str]:
    """Return the names `create_model` takes, sorted."""
    return sorted(MODELS)


def model_class(name: str) -> type[nn.Module]:
    """Return the class behind a model name.

    Raises:
        UserError: if the name is unknown.
    """
    if name in READ_ONLY:
        return READ_ONLY[name]
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def argument_names(name: str) -> list[str]:
    """Return the keyword arguments that `create_model` takes for a model.

    Raises:
        UserError: if the name is unknown.
    """
    model_type = model_class(name)
    if issubclass(model_type, TimeSformer):
        return [field.name for field in fields(model_type.config_type)]
    return [
        parameter
        for parameter in inspect.signature(model_type.__init__).parameters
        if parameter != "self"
    ]


def create_model(name: str, **arguments: Any) -> nn.Module:
    """Build a model with fresh weights, in training mode.

    Args:
        name: one of `list_models()`.
        arguments: the keyword arguments of the model's class.

    Raises:
        UserError: if the name or an argument is unknown.
    """
    model_type, known = model_class(name), argument_names(name)
    for key in arguments:
        if key not in known:
            raise unknown_name(f"argument of model '{name}'", key, known)
    try:
        return model_type(**arguments)
    except TypeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model '{name}': {reason}") from error
