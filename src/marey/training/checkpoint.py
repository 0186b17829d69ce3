"""The resume state of a run: a safetensors file, with everything but tensors as JSON in its header;
no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from marey.errors import UserError
from marey.files import DAMAGE, atomic

RESUME_FILE = "resume.safetensors"


def save_resume(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write the state of a run to a temporary name and rename it, so that a kill leaves the old
    state or the new.

    Args:
        modules: name -> module whose state_dict is kept ("step" for model and objective,
            "average").
        state: JSON types: step, schedule, best metric, threads, random seeds.
    """
    tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    optim_tensors, optim_values = split_optimizer_state(optimizer)
    tensors.update({f"optimizer/{key}": value for key, value in optim_tensors.items()})
    header = {"state": json.dumps({**state, "optimizer": optim_values})}
    # Each tensor is written as a copy: tied weights share memory, which the format refuses.
    copies = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with atomic(folder / RESUME_FILE) as temporary:
        save_file(copies, temporary, header)


def load_resume(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put the saved state back into modules and optimiser, and return the rest.

    Raises:
        UserError: if the file is damaged, or belongs to another model or optimiser.
    """
    path = folder / RESUME_FILE
    try:
        with safe_open(path, framework="pt") as stream:
            state = json.loads(stream.metadata()["state"])
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"{name}/"))
        join_optimizer_state(optimizer, _below(tensors, "optimizer/"), state["optimizer"])
    except (SafetensorError, RuntimeError, OSError, *DAMAGE) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{path}: cannot resume: {reason}; resume with the same recipe and settings, "
            "or start again in another --out"
        ) from error
    return state


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def split_optimizer_state(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors named "<parameter>.<slot>" and plain values of the
    same names."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for parameter, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            (tensors if isinstance(value, Tensor) else values)[f"{parameter}.{slot}"] = value
    return tensors, values


def join_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]
) -> None:
    """Put what `split_optimizer_state` gave back into an optimiser with the same parameters."""
    slots: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **values}.items():
        parameter, slot = key.split(".", 1)
        slots.setdefault(int(parameter), {})[slot] = value
    optimizer.load_state_dict(
        {"state": slots, "param_groups": optimizer.state_dict()["param_groups"]}
    )
