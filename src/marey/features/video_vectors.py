"""What is measured of a whole video, beside the clips that a network sees: its motion, the people
in it, their poses.

    vectors = VideoVectors(("motion", "poses"))
    vectors.of_file("fight.mp4")        # {"motion": (2038,), "poses": (1658,)}
    vectors.of_clip(clip)               # of frames that are already decoded
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.features.cache import FeatureCache
from marey.features.crops import CROP_DIM, CROP_FPS, CROP_FRAMES, crop_vector
from marey.features.motion import MOTION_DIM, MOTION_FPS, SECONDS, motion_vector, small_grey
from marey.features.pose_cache import cached_poses
from marey.features.poses import POSE_DIM, pose_vector
from marey.persons.pose_tracks import PoseTracks, poses_of_frames, read_poses
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.video.clip import Clip
from marey.video.decode import open_video

VECTOR_DIMS = {"motion": MOTION_DIM, "crops": CROP_DIM, "poses": POSE_DIM}
"""Name -> width."""
OF_PEOPLE = ("crops", "poses")
"""Those that first find the people, which takes most of the time."""
POSE_FPS = 12.5
VERSION = 1
"""Of what is measured; stored vectors of another version are measured again."""
CHUNK_FRAMES = 16


class VideoVectors:
    """Measures vectors of videos.

    Args:
        names: of `VECTOR_DIMS`, in the order in which they are put together.
        finder: who finds people; None: `persons.sources.pose_finder("auto")`, when first needed.

    Raises:
        UserError: if a name is unknown.
    """

    def __init__(self, names: Sequence[str], *, finder: PoseFinder | None = None) -> None:
        for name in names:
            if name not in VECTOR_DIMS:
                raise unknown_name("measure of videos", name, VECTOR_DIMS)
        self.names = tuple(names)
        self._finder = finder

    def only(self, names: Sequence[str]) -> VideoVectors:
        """Return what measures some of these, by the same finder."""
        finder = self.finder if set(names) & set(OF_PEOPLE) else None
        return VideoVectors(names, finder=finder)

    @property
    def finder(self) -> PoseFinder:
        """Who finds people; its networks are loaded when first needed."""
        if self._finder is None:
            self._finder = pose_finder("auto")
        return self._finder

    def of_file(
        self,
        video: str | Path,
        *,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        poses: PoseTracks | None = None,
        cache: FeatureCache | None = None,
        **limits: Any,
    ) -> dict[str, Tensor]:
        """Measure a video, or a stretch of it.

        Args:
            poses: of the stretch, where they are already known.
            cache: where poses are stored; None: nowhere.
            limits: "max_pixels" and "max_seconds" of `open_video`.

        Raises:
            VideoError: if it cannot be read.
        """
        found: dict[str, Tensor] = {}
        if poses is None and set(self.names) & set(OF_PEOPLE):
            options = {
                "fps": POSE_FPS,
                "finder": self.finder,
                "start_seconds": start_seconds,
                "end_seconds": end_seconds,
                **limits,
            }
            poses = (
                read_poses(video, **options)
                if cache is None
                else cached_poses(video, cache, **options)
            )
        given = {name: value for name, value in limits.items() if value is not None}
        if set(self.names) != {"poses"}:
            with open_video(video, **given) as reader:
                first, stop = reader.frame_range(start_seconds, end_seconds)
                times = reader.frame_seconds[first:stop]
                end = reader.end_seconds(stop - 1)
                if "motion" in self.names:
                    indices = [first + place for place in motion_places(times, end)]
                    parts = [
                        small_grey(reader.frames_at(indices[at : at + CHUNK_FRAMES]).frames)
                        for at in range(0, len(indices), CHUNK_FRAMES)
                    ]
                    seconds = [reader.frame_seconds[index] for index in indices]
                    found["motion"] = motion_vector(torch.cat(parts), seconds)
                if "crops" in self.names and poses is not None:
                    indices = [first + place for place in crop_places(times, end)]
                    frames = reader.frames_at(indices, held=CROP_FRAMES).frames
                    found["crops"] = crop_vector(frames, poses)
        if "poses" in self.names and poses is not None:
            found["poses"] = pose_vector(poses)
        return {name: found[name] for name in self.names}

    def of_clip(self, clip: Clip, *, poses: PoseTracks | None = None) -> dict[str, Tensor]:
        """Measure frames that are already decoded, the more a second the better up to
        `MOTION_FPS`.

        Args:
            poses: of these frames, where they are already known.
        """
        found: dict[str, Tensor] = {}
        times = clip.frame_seconds
        end = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
        if "motion" in self.names:
            looked = clip.take(motion_places(times, end))
            found["motion"] = motion_vector(small_grey(looked.frames), looked.frame_seconds)
        if poses is None and set(self.names) & set(OF_PEOPLE):
            poses = poses_of_frames(clip.take(_at_rate(times, end, POSE_FPS)), finder=self.finder)
        if poses is not None and "crops" in self.names:
            found["crops"] = crop_vector(clip.take(crop_places(times, end)).frames, poses)
        if poses is not None and "poses" in self.names:
            found["poses"] = pose_vector(poses)
        return {name: found[name] for name in self.names}


def joined(vectors: dict[str, Tensor]) -> Tensor:
    """Return vectors side by side, (E,)."""
    return torch.cat(list(vectors.values()))


def vectors_of(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the vectors that a model reads beside clips, in their order.

    Raises:
        UserError: if it was taught with vectors of other widths than these.
    """
    wanted: dict[str, int] = getattr(model, "vectors", {})
    for name, width in wanted.items():
        if VECTOR_DIMS.get(name) != width:
            raise UserError(
                f"the model was taught with '{name}' of {width} values, and this version of marey "
                f"measures {VECTOR_DIMS.get(name)}; teach it again"
            )
    return tuple(wanted)


def motion_places(times: Sequence[float], end: float) -> list[int]:
    """Return the places of the frames in which motion is measured: `MOTION_FPS` a second of the
    middle `SECONDS`.

    Args:
        times: at which frames are first shown, rising.
        end: when the last one stops being shown.
    """
    middle, half = (times[0] + end) / 2, min(SECONDS, end - times[0]) / 2
    count = max(1, int(2 * half * MOTION_FPS + 1e-6))
    start = middle - count / (2 * MOTION_FPS)
    return sorted(set(_shown(times, [start + k / MOTION_FPS for k in range(count)])))


def crop_places(times: Sequence[float], end: float) -> list[int]:
    """Return the places of `CROP_FRAMES` frames around the middle; of a shorter video they lie
    closer together."""
    step = min(1 / CROP_FPS, (end - times[0]) / CROP_FRAMES)
    start = (times[0] + end) / 2 - step * CROP_FRAMES / 2
    return _shown(times, [start + (k + 0.5) * step for k in range(CROP_FRAMES)])


def _at_rate(times: Sequence[float], end: float, fps: float) -> list[int]:
    """Return the places of the frames shown at each tick, each once."""
    count = max(1, round((end - times[0]) * fps))
    return sorted(set(_shown(times, [times[0] + (k + 0.5) / fps for k in range(count)])))


def _shown(times: Sequence[float], wanted: Sequence[float]) -> list[int]:
    return [max(0, bisect_right(times, second + 1e-6) - 1) for second in wanted]
