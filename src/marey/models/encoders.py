"""Every clip encoder under its name: `encoder(clip) -> {"tokens" (B, L, D), "embedding" (B, E)}`.

An encoder keeps its keyword arguments in `encoder.arguments` (JSON types only) and the width E in
`encoder.embed_dim`. It has no classes; `Probe` puts a linear map on it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from marey.errors import UserError, unknown_name
from marey.models.external_encoder import ExternalEncoder
from marey.models.frame_statistics import FrameStatistics

ENCODERS: dict[str, type[nn.Module]] = {
    "frame_statistics": FrameStatistics,
    "external": ExternalEncoder,
}


def create_encoder(name: str, **arguments: Any) -> nn.Module:
    """Build an encoder with fresh weights.

    Raises:
        UserError: if the name or an argument is unknown.
    """
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    try:
        return ENCODERS[name](**arguments)
    except TypeError as error:
        raise UserError(f"encoder '{name}': {error}") from error


def encoder_name(encoder: nn.Module) -> str:
    """Return the name of `ENCODERS` that builds an encoder."""
    return next(name for name, kind in ENCODERS.items() if kind is type(encoder))
