"""The clip that decoding returns: frames, and the times at which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Some frames of one video, with their indices and times in it."""

    frames: Tensor
    """uint8, (T, C, H, W), RGB, upright (rotation metadata applied); its memory may lie
    channels-last."""
    frame_indices: tuple[int, ...]
    """Index of each frame in presentation order, from 0; T entries."""
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

    def take(self, positions: Sequence[int]) -> Clip:
        """Return the clip of some of these frames, by their positions in it: 0 to T - 1, any order,
        repeats allowed."""
        if list(positions) == list(range(self.num_frames)):
            return self
        return replace(
            self,
            frames=self.frames[list(positions)],
            frame_indices=tuple(self.frame_indices[i] for i in positions),
            frame_seconds=tuple(self.frame_seconds[i] for i in positions),
        )
