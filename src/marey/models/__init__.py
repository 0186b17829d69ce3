"""Every architecture under its name: the key is the name of the class's module, its value where the class lives.

A model is an `nn.Module` that takes plain keyword arguments, keeps them in `model.arguments` (JSON types only, so a
checkpoint can rebuild it), and answers `model(clip) -> dict` as docs/conventions.md describes.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from marey.errors import UserError, unknown_name

MODELS: dict[str, str] = {
    "timesformer": "marey.models.timesformer:TimeSformer",
    "direcformer": "marey.models.direcformer:DirecFormer",
    "sevitar": "marey.models.sevitar:SeViTAR",
    "grid_sevitar": "marey.models.grid_sevitar:GridSeViTAR",
    "gat": "marey.models.gat:GAT",
    "i3d": "marey.models.i3d:I3D",
    "stem_classifier": "marey.models.stem_classifier:StemClassifier",
    "action_transformer": "marey.models.action_transformer:ActionTransformer",
    "external": "marey.models.external:ExternalClassifier",
}
"""Model name -> "module:class"; imported when asked for."""


def list_models() -> list[str]:
    """Return the names `create_model` takes, sorted."""
    return sorted(MODELS)


def model_class(name: str) -> type[nn.Module]:
    """Return the class behind a model name.

    Raises:
        UserError: if the name is unknown.
    """
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    module, attribute = MODELS[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def create_model(name: str, **arguments: Any) -> nn.Module:
    """Build a model with fresh weights, in training mode.

    Args:
        name: one of `list_models()`.
        arguments: the keyword arguments of the model's class.

    Raises:
        UserError: if the name or an argument is unknown.
    """
    import inspect

    model_type = model_class(name)
    known = [p for p in inspect.signature(model_type.__init__).parameters if p != "self"]
    for key in arguments:
        if key not in known:
            raise unknown_name(f"argument of model '{name}'", key, known)
    try:
        return model_type(**arguments)
    except TypeError as error:
        raise UserError(f"model '{name}': {error}") from error
