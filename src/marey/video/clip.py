"""What decoding returns: frames with the times they are shown at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Some frames of one video, with where and when they stand in it."""

    frames: Tensor
    """uint8, (T, C, H, W), RGB, upright (rotation metadata applied); its memory may lie channels-last."""
    frame_indices: tuple[int, ...]
    """Place of each frame in presentation order, 0-based, T entries."""
    frame_seconds: tuple[float, ...]
    """Presentation time of each frame, in seconds from the first shown frame, T entries."""
    fps: float
    """Average frame rate of the source, in frames per second."""
    path: str
    """The file or folder the frames came from."""

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return self.frames.shape[0]

    def take(self, places: Sequence[int]) -> Clip:
        """The clip made of the frames at these places of this one (0..T-1, any order, repeats allowed)."""
        return replace(self, frames=self.frames[list(places)],
                       frame_indices=tuple(self.frame_indices[i] for i in places),
                       frame_seconds=tuple(self.frame_seconds[i] for i in places))
