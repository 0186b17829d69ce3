"""Decoded frames as upright RGB pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter


def quarter_turns(frame: Any) -> tuple[bool, bool, bool]:
    """Return (transpose, flip left-right, flip up-down) that show a frame as its display matrix
    asks.

    The matrix (a b u, c d v, x y w) sends a point to x' = a x + c y, y' = b x + d y
    (ISO/IEC 14496-12, 8.3.2); angles are taken to whole quarter turns.
    """
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(side, np.int32).tolist()
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def upright_rgb(
    frame: Any,
    size: tuple[int, int],
    turns: tuple[bool, bool, bool],
    reformatter: VideoReformatter,
    interpolation: str | None = None,
) -> np.ndarray:
    """Return the pixels of a frame, (H, W, 3) uint8; a view into the frame's own memory where it is
    not turned.

    Args:
        frame: PyAV's decoded frame, of any pixel format and size.
        size: (width, height) in pixels before turning, to which a frame of another size is resized.
        turns: as `quarter_turns` returns them.
        reformatter: keeps the conversion's state between frames.
        interpolation: FFmpeg's name of the method of resizing; None is bilinear.
    """
    width, height = size
    plane = reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        threads=1,
        interpolation=interpolation,
    ).planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    pixels = rows[:height, : width * 3].reshape(height, width, 3)
    transpose, flip_x, flip_y = turns
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    return pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
