"""Position and time embeddings, and how they stretch to another grid or length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.errors import UserError

RESIZE_MODES = ("nearest", "bicubic")
"""`nearest`, as the released TimeSformer, or `bicubic`, which is smooth (linear in time)."""


def _check_mode(mode: str) -> None:
    if mode not in RESIZE_MODES:
        raise UserError(
            f"unknown embedding resize mode '{mode}'; choose one of {', '.join(RESIZE_MODES)}"
        )


def resize_position_embedding(
    embedding: Tensor, grid: tuple[int, int], new_grid: tuple[int, int], mode: str = "nearest"
) -> Tensor:
    """Stretch the embedding of a patch grid to another grid; the class token's stays.

    Args:
        embedding: float, (1, 1 + h*w, D), class token first.
        grid: (h, w) of `embedding`.
        new_grid: (h, w) wanted.
        mode: one of `RESIZE_MODES`.

    Returns:
        (1, 1 + new_h*new_w, D).
    """
    _check_mode(mode)
    if grid == new_grid:
        return embedding
    cls, patches = embedding[:, :1], embedding[:, 1:]
    image = patches.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    smooth = {"align_corners": False, "antialias": True} if mode == "bicubic" else {}
    image = F.interpolate(image, size=new_grid, mode=mode, **smooth)
    return torch.cat((cls, image.flatten(2).transpose(1, 2)), dim=1)


def resize_time_embedding(embedding: Tensor, num_frames: int, mode: str = "nearest") -> Tensor:
    """Stretch (1, T, D) to (1, num_frames, D); `bicubic` is linear along this one axis."""
    _check_mode(mode)
    if embedding.shape[1] == num_frames:
        return embedding
    smooth = {"align_corners": False} if mode == "bicubic" else {}
    stretched = F.interpolate(
        embedding.transpose(1, 2),
        size=num_frames,
        mode="linear" if mode == "bicubic" else mode,
        **smooth,
    )
    return stretched.transpose(1, 2)


def resize_joint_embedding(
    embedding: Tensor,
    grid: tuple[int, int, int],
    new_grid: tuple[int, int, int],
    mode: str = "nearest",
) -> Tensor:
    """Stretch a joint embedding (1, 1 + t*h*w, D), one vector per patch and frame: over space, then
    over time."""
    _check_mode(mode)
    if grid == new_grid:
        return embedding
    cls, D = embedding[:, :1], embedding.shape[-1]
    t, h, w = grid
    per_frame = embedding[:, 1:].reshape(t, h * w, D)
    # Each frame is stretched as an image; the padding stands for the class token that function
    # expects first.
    per_frame = torch.cat(
        [
            resize_position_embedding(F.pad(frame[None], (0, 0, 1, 0)), (h, w), new_grid[1:], mode)
            for frame in per_frame
        ]
    )[:, 1:]  # (t, new_h*new_w, D)
    stretched = resize_time_embedding(per_frame.transpose(0, 1), new_grid[0], mode)
    return torch.cat((cls, stretched.transpose(0, 1).reshape(1, -1, D)), dim=1)
