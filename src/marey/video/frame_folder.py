"""A folder of JPEG/PNG frames as a video (Jester, SSv2, AVA extractions)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from marey.errors import VideoError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
"""Suffixes of image files, in lower case."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that reads digits as numbers, so frame_2 stands before frame_10."""
    return [
        (1, int(part), "") if part.isdigit() else (0, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    ]


class FrameFolder:
    """Frames of one folder in the order of the numbers in their names."""

    def __init__(self, path: str, *, fps: float, max_pixels: int) -> None:
        if not fps > 0:
            raise VideoError(f"{path}: a folder of frames needs a frame rate above 0, got {fps}")
        self.path, self.fps, self.max_pixels = path, float(fps), max_pixels
        self.files = sorted(
            (
                entry
                for entry in Path(path).iterdir()
                if entry.suffix.lower() in SUFFIXES
                and entry.is_file()
                and not entry.name.startswith(".")
            ),
            key=lambda entry: natural_key(entry.name),
        )
        if not self.files:
            raise VideoError(
                f"{path}: holds no frames ({', '.join(sorted(SUFFIXES))}); give a folder of images "
                "or a video file"
            )
        self.frame_seconds = tuple(i / self.fps for i in range(len(self.files)))
        self.duration_seconds = len(self.files) / self.fps
        self.damaged: str | None = None
        self.height, self.width = self._read(0).shape[:2]

    def _read(self, index: int) -> np.ndarray:
        file = self.files[index]
        try:
            with Image.open(file) as image:
                if image.width * image.height > self.max_pixels:
                    raise VideoError(
                        f"{file}: is {image.width} x {image.height}, the limit is "
                        f"{self.max_pixels} pixels; shrink it or raise max_pixels"
                    )
                if image.mode.startswith("I"):  # 16-bit grey
                    grey = (
                        (np.asarray(image, dtype=np.float64) / 257)
                        .round()
                        .clip(0, 255)
                        .astype(np.uint8)
                    )
                    return np.repeat(grey[..., None], 3, axis=-1)
                return np.array(ImageOps.exif_transpose(image).convert("RGB"))
        except VideoError:
            raise
        except (
            UnidentifiedImageError,
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:
            reason = " ".join(str(error).split())
            raise VideoError(
                f"{file}: frame {index} cannot be read ({reason}); extract it again"
            ) from error

    def stream(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 frames; one of another size than the first is resized to it.

        Args:
            size: (height, width) to reduce each frame to; None keeps that of the first.
        """
        height, width = size or (self.height, self.width)
        for index in indices:
            frame = self._read(index)
            if frame.shape[:2] != (height, width):
                frame = np.array(
                    Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
                )
            yield frame

    def decode(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Return (n, H, W, 3) uint8."""
        out = np.empty((len(indices), *(size or (self.height, self.width)), 3), np.uint8)
        for order, frame in enumerate(self.stream(indices, size)):
            out[order] = frame
        return out

    def close(self) -> None:
        """Nothing is held open."""
