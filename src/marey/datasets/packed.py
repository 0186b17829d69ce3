"""A packed data set: decoded clips in one array on disk, for renders and for training without decoding.

A folder with `packed.json` ({"format": 1, "fps": float}), `frames.npy` (uint8, (N, T, C, H, W), memory-mapped) and a
`manifest.csv` whose i-th row describes clip i.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marey.errors import UserError


@dataclass(frozen=True)
class Packed:
    """An opened packed folder; frames are read from disk when asked for."""

    array: np.ndarray
    """uint8, (N, T, C, H, W), memory-mapped."""
    fps: float

    def frames(self, row: int) -> Tensor:
        """Return clip `row`, uint8 (T, C, H, W), as a copy."""
        return torch.from_numpy(np.array(self.array[row]))


@lru_cache(maxsize=8)
def open_packed(root: Path) -> Packed:
    """Open a packed folder.

    Raises:
        UserError: if its description or array is missing or of another format.
    """
    description = json.loads((root / "packed.json").read_text())
    if description.get("format") != 1:
        raise UserError(f"{root / 'packed.json'}: format {description.get('format')}, expected 1; "
                        "pack the data again with this version of marey")
    array = np.load(root / "frames.npy", mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8 or array.ndim != 5:
        raise UserError(f"{root / 'frames.npy'}: {array.dtype} with {array.ndim} axes, expected uint8 (N, T, C, H, W)")
    return Packed(array=array, fps=float(description["fps"]))
