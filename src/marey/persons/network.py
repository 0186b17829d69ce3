"""The bundled person networks, run by ONNX Runtime, and how a frame is fitted into them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from marey.checkpoints.sources import WEIGHTS_FOLDER
from marey.errors import UserError

Array = NDArray[np.floating]

STRIDE = 32
"""Sides of a network's input are multiples of it."""


class Network:
    """A convolutional network from `weights/NAME/model.onnx`: named outputs of a batch of frames.

    Args:
        name: "movenet-multipose" or "nanodet".
        threads: computing threads; None takes as many as torch does.
    """

    def __init__(self, name: str, *, threads: int | None = None) -> None:
        path = WEIGHTS_FOLDER / name / "model.onnx"
        if not path.is_file():
            raise UserError(f"{path}: the person network is missing; install marey again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, frames: Array) -> dict[str, Array]:
        """Run on float frames (B, 3, H, W), H and W multiples of 32."""
        answers: list[Any] = self.session.run(self.names, {"frames": frames})
        return dict(zip(self.names, answers, strict=True))


def letterbox(frames: Tensor, long_side: int) -> tuple[Tensor, float]:
    """Scale frames to a long side and pad them with zeros, below and to the right.

    Args:
        frames: uint8, (T, 3, H, W).
        long_side: of the scaled picture, in pixels; a multiple of 32. The other side is padded to
            the next multiple of 32, not to a square: the networks are fully convolutional.

    Returns:
        uint8 (T, 3, h, w), and the scale: pixels of the result per pixel of the frame.
    """
    H, W = frames.shape[-2:]
    scale = long_side / max(H, W)
    h, w = max(1, round(H * scale)), max(1, round(W * scale))
    if (h, w) != (H, W):
        frames = F.interpolate(frames, size=(h, w), mode="bilinear", antialias=True)
    padding = (0, -w % STRIDE, 0, -h % STRIDE)
    return F.pad(frames, padding), scale


def sigmoid(logits: Array) -> Array:
    """Return the logistic function; logits beyond +-80 saturate without overflow."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
