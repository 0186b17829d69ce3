"""Read PyTorch files of other projects without executing their pickles, and find the state dict
inside."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from marey.errors import UserError
from marey.files import DAMAGE

CONTAINERS = ("model_state", "state_dict", "model")
"""Keys under which trainers put the weights."""

SMALLEST = 8
"""Bytes of the smallest file; torch ends the process at an empty one."""

PREFIXES = ("module.", "model.")
"""What parallel wrappers and trainers put before every name."""


def read_pickled(path: str | Path) -> dict[str, Any]:
    """Read a `.pth`, `.pyth`, `.pt` or `.bin` file with `weights_only=True`, or a `.safetensors`
    file.

    Raises:
        UserError: if the file is absent, damaged, or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size < SMALLEST:
        raise UserError(
            f"{path}: {path.stat().st_size} bytes are no file of weights; copy or download it again"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose text advises to run them
        raise UserError(
            f"{path}: not readable as weights only; the file is damaged or holds Python objects, "
            "which are never run: save its state dict alone and try again"
        ) from error
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        *DAMAGE,
    ) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path}: not readable as weights only ({first[:200]}); the file is damaged or holds "
            "Python objects, which are never run: save its state dict alone and try again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict of tensors, got {type(content).__name__}")
    return content


def state_of(content: dict[str, Any], source: str | Path) -> dict[str, Tensor]:
    """Return the state dict inside a container, names without `module.` and `model.`, float tensors
    as float32.

    Raises:
        UserError: if there are no tensors.
    """
    state: Any = content
    for key in CONTAINERS:
        if isinstance(content.get(key), dict):
            state = content[key]
            break
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(
            f"{source}: no tensors found; looked at the top and under {', '.join(CONTAINERS)}"
        )
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return {
        name: value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }
