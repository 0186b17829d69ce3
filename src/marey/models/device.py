"""The device a model runs on, checked before anything is loaded."""

from __future__ import annotations

import torch

from marey.errors import UserError


def best_device() -> str:
    """Return "cuda", "mps" or "cpu", the first that this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Raises:
        UserError: if torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        have = ["cpu"]
        have += ["cuda"] if torch.cuda.is_available() else []
        have += ["mps"] if torch.backends.mps.is_available() else []
        raise UserError(
            f"--device {name} cannot be used here ({reason}); this machine has {', '.join(have)}"
        ) from error
    return device
