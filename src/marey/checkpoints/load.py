"""Load a checkpoint by its name, wherever it comes from and whatever format it has.

load_checkpoint("marey-mini")                      bundled with the package
load_checkpoint("runs/jester/best")                a folder written by `save_checkpoint`
load_checkpoint("hf:facebook/timesformer-base-finetuned-k400")  a hub id or its folder
load_checkpoint("torchvision:swin3d_t")            torchvision's video models
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.checkpoints.external import load_hf_external, load_hf_text_video, load_torchvision
from marey.checkpoints.folder import EXTRA, Checkpoint, load_folder, read_tensors
from marey.checkpoints.huggingface import load_hf_timesformer, local_copy
from marey.checkpoints.sources import (
    CONFIG,
    WEIGHTS,
    WEIGHTS_FOLDER,
    best_of_run,
    bundled_names,
    find_source,
)
from marey.errors import UserError
from marey.files import read_json, untrusted
from marey.layers.transformer_block import fold_temporal_projection

RENAMED = {"marey-mini": "marey-mini-rgb"}
"""Name that a model of pixels was bundled under in an earlier version -> its name today."""


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Load a model with its class names, preprocessing and calibration, ready to predict.

    Args:
        source: a bundled name, a short name of `PUBLIC_MODELS`, a checkpoint folder, the folder of
            a training run (its best checkpoint), "hf:<hub id or folder>", or
            "torchvision:<model>".

    Raises:
        UserError: if there is no such checkpoint or it does not fit.
    """
    found = find_source(source)
    if isinstance(found, str):
        kind, _, name = found.partition(":")
        return load_hf(name) if kind == "hf" else load_torchvision(name)
    if str(source) in bundled_names():
        return load_folder(found, source=str(source))
    if "model_type" in read_json(found / CONFIG):
        return load_hf(str(found))
    return load_folder(found)


def stored_tensors(source: str | Path, names: Sequence[str]) -> dict[str, Tensor]:
    """Return some of the further tensors of a checkpoint folder or run, those that it has, without
    building its model; empty where `source` is none of our folders."""
    folder = WEIGHTS_FOLDER / str(source) if str(source) in bundled_names() else Path(source)
    path = (best_of_run(folder) or folder) / WEIGHTS
    if not path.is_file():
        return {}
    tensors = read_tensors(path)
    return {name: tensors[EXTRA + name] for name in names if EXTRA + name in tensors}


def load_hf(source: str) -> Checkpoint:
    """Load a video classifier of the `transformers` layout: TimeSformer as our own model, X-CLIP to
    rank given names, others as they are.

    Args:
        source: hub id, or a local folder.

    Raises:
        UserError: if it is not there, or is no model that can be read.
    """
    folder = local_copy(source)
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{folder / CONFIG}: 'model_type' is no text; the file is damaged")
    readers = {"timesformer": load_hf_timesformer, "xclip": load_hf_text_video}
    read = readers.get(config["model_type"], load_hf_external)
    with untrusted(folder, "a model of transformers"):
        return read(folder, config, f"hf:{source}")


def load_model(source: str | Path, *, compile: bool = False) -> nn.Module:
    """Load only the model of a checkpoint, in evaluation mode.

    Args:
        source: as in `load_checkpoint`.
        compile: hand it to `compiled`; the first predictions then take up to minutes.
    """
    model = load_checkpoint(source).model
    return compiled(model) if compile else model


def compiled(model: nn.Module) -> nn.Module:
    """Return the model behind `torch.compile`, or with a warning the model itself where that does
    not work here.

    The temporal projection of TimeSformer's family is folded first, as a constant. The fallback
    also holds at the first forward, where the compiler really runs.
    """
    fold_temporal_projection(model)
    try:
        fast = torch.compile(model)
    except Exception as error:
        warn_of_fallback(error)
        return model
    return CompiledModel(model, fast).eval()


class CompiledModel(nn.Module):
    """A model whose forward is compiled, and falls back to the model itself if the compiler fails.

    Args:
        model: the model.
        fast: the same model, compiled by `torch.compile`.
    """

    def __init__(self, model: nn.Module, fast: Any) -> None:
        super().__init__()
        self.model = model
        self.arguments = getattr(model, "arguments", {})
        self._fast = [fast]  # in a list, so that its weights are not registered twice

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's outputs."""
        if self._fast:
            try:
                return self._fast[0](*args, **kwargs)
            except UserError:
                raise
            except Exception as error:
                self._fast.clear()
                warn_of_fallback(error)
        return self.model(*args, **kwargs)


def warn_of_fallback(error: Exception) -> None:
    """Warn that the model runs without `torch.compile`, with the first line of the reason."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    warnings.warn(f"torch.compile does not work here ({reason}); going on without it", stacklevel=3)
