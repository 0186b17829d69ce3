"""The people of a whole video, each with one pose per moment."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marey.errors import UserError
from marey.files import atomic
from marey.persons.follow import DETECT_EVERY_SECONDS, Follower, TrackedFrame, follow
from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.transforms.pose_clip import PoseSampling, at_moments
from marey.video.clip import Clip
from marey.video.decode import open_video
from marey.video.sampling import frames_at_rate

Array = NDArray[np.floating]

VERSION = 2
"""Of what `read_poses` computes; stored poses of another version are computed again."""

MAX_BRIDGED_SECONDS = 0.5
"""A person unseen for no longer is taken to have moved straight on."""

BRIDGED_SCORE = 0.5
"""Keypoints of a bridged frame have this share of their neighbours' scores."""

MIN_OBSERVED = 3
"""Tracks seen in fewer frames are dropped, unless the video has fewer."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One person at one time."""

    number: int
    """Of the track."""
    keypoints: Array
    """(17, 3): x, y in pixels / frame height, and score."""
    box_xyxy: Array
    """(4,), in pixels / frame height."""
    score: float


@dataclass(frozen=True, kw_only=True)
class PoseTrack:
    """One person, T moments."""

    number: int
    """Of the track, from 1."""
    frame_indices: NDArray[np.int64]
    """(T,), places in the video's presentation order."""
    seconds: NDArray[np.float64]
    """(T,), rising; neighbours are further apart where the person was out of sight."""
    keypoints: Array
    """(T, 17, 3): x, y in pixels / frame height, and score in [0, 1]; COCO's order."""
    boxes_xyxy: Array
    """(T, 4), in pixels / frame height."""
    scores: Array
    """(T,), of the person, in [0, 1]."""
    observed: NDArray[np.bool_]
    """(T,); False where a short gap was bridged."""


@dataclass(frozen=True, kw_only=True)
class PoseTracks:
    """Everyone in one video."""

    video: str
    width: int
    height: int
    """Pixels of a frame."""
    fps: float
    """At which frames were looked at."""
    frame_indices: NDArray[np.int64]
    """(F,), every frame that was looked at."""
    seconds: NDArray[np.float64]
    """(F,), their times."""
    tracks: tuple[PoseTrack, ...] = field(default=())
    """The most present person first: by the sum of score x height of the box."""

    def reversed(self) -> PoseTracks:
        """Return the same finds as those of the video played backwards; the frames keep their
        numbers."""
        end = float(self.seconds[-1]) if len(self.seconds) else 0.0
        tracks = []
        for track in self.tracks:
            arrays: dict[str, Any] = {
                name: np.ascontiguousarray(getattr(track, name)[::-1]) for name in TRACK_ARRAYS
            }
            tracks.append(replace(track, **arrays | {"seconds": end - arrays["seconds"]}))
        return replace(
            self,
            frame_indices=np.ascontiguousarray(self.frame_indices[::-1]),
            seconds=np.ascontiguousarray(end - self.seconds[::-1]),
            tracks=tuple(tracks),
        )

    def at(self, seconds: float) -> list[Pose]:
        """Return everyone at a time, moved straight on between the two moments around it.

        Nobody is shown across a gap longer than `MAX_BRIDGED_SECONDS`, nor further than half a
        step before the first and after the last moment.
        """
        step = 1 / self.fps
        poses = []
        for track in self.tracks:
            after = int(np.searchsorted(track.seconds, seconds))
            before = max(after - 1, 0)
            after = min(after, len(track.seconds) - 1)
            start, end = track.seconds[before], track.seconds[after]
            near = min(abs(seconds - start), abs(seconds - end)) <= step / 2 + 1e-6
            if not near and not (start <= seconds <= end and end - start <= MAX_BRIDGED_SECONDS):
                continue

            share = 0.0 if end <= start else float(np.clip((seconds - start) / (end - start), 0, 1))
            if end - start > MAX_BRIDGED_SECONDS:
                share = round(share)
            keypoints = (1 - share) * track.keypoints[before] + share * track.keypoints[after]
            box = (1 - share) * track.boxes_xyxy[before] + share * track.boxes_xyxy[after]
            score = (1 - share) * track.scores[before] + share * track.scores[after]
            poses.append(
                Pose(number=track.number, keypoints=keypoints, box_xyxy=box, score=float(score))
            )
        return poses

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of this video in JSON types, as docs/persons.md describes it."""
        frames: list[dict[str, Any]] = [
            {"frame": int(index), "seconds": round(float(seconds), 3), "persons": []}
            for index, seconds in zip(self.frame_indices, self.seconds, strict=True)
        ]
        place = {frame["frame"]: number for number, frame in enumerate(frames)}
        for track in self.tracks:
            pixels = self.height * track.keypoints[..., :2]
            boxes = self.height * track.boxes_xyxy
            for moment, index in enumerate(track.frame_indices.tolist()):
                keypoints = [
                    [round(x, 1), round(y, 1), round(score, 3)]
                    for (x, y), score in zip(
                        pixels[moment].tolist(), track.keypoints[moment, :, 2].tolist(), strict=True
                    )
                ]
                frames[place[index]]["persons"].append(
                    {
                        "track": track.number,
                        "score": round(float(track.scores[moment]), 3),
                        "observed": bool(track.observed[moment]),
                        "box_xyxy": [round(v, 1) for v in boxes[moment].tolist()],
                        "keypoints": keypoints,
                    }
                )
        tracks = [
            {
                "track": track.number,
                "from_seconds": round(float(track.seconds[0]), 3),
                "to_seconds": round(float(track.seconds[-1]), 3),
                "frames": len(track.seconds),
                "mean_score": round(float(track.scores.mean()), 3),
            }
            for track in self.tracks
        ]
        return {
            "video": self.video,
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "frames": frames,
            "tracks": tracks,
            "error": None,
        }

    def about(self) -> str:
        """Return what `arrays` does not hold, as JSON."""
        return json.dumps(
            {
                "version": VERSION,
                "video": self.video,
                "width": self.width,
                "height": self.height,
                "fps": self.fps,
                "tracks": [track.number for track in self.tracks],
            }
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the frames' and every track's arrays by name, for storing."""
        arrays: dict[str, NDArray[Any]] = {
            "frame_indices": self.frame_indices,
            "seconds": self.seconds,
        }
        for track in self.tracks:
            for name in TRACK_ARRAYS:
                arrays[f"{track.number}/{name}"] = getattr(track, name)
        return arrays

    @classmethod
    def from_arrays(cls, about: str, arrays: Mapping[str, NDArray[Any]]) -> PoseTracks:
        """Build from what `about` and `arrays` gave.

        Raises:
            KeyError, ValueError: if something is missing.
        """
        facts = json.loads(about)
        if facts["version"] != VERSION:
            raise ValueError(f"poses of version {facts['version']}, expected {VERSION}")
        tracks = tuple(
            PoseTrack(number=number, **{name: arrays[f"{number}/{name}"] for name in TRACK_ARRAYS})
            for number in facts["tracks"]
        )
        return cls(
            video=facts["video"],
            width=facts["width"],
            height=facts["height"],
            fps=facts["fps"],
            frame_indices=arrays["frame_indices"],
            seconds=arrays["seconds"],
            tracks=tracks,
        )

    def save(self, path: str | Path) -> None:
        """Write everything as one .npz file."""
        stored: dict[str, Any] = {"about": np.array(self.about()), **self.arrays()}
        with atomic(path) as temporary:
            np.savez_compressed(temporary, **stored)

    @classmethod
    def load(cls, path: str | Path) -> PoseTracks:
        """Read a file written by `save`.

        Raises:
            UserError: if it is something else, or of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls.from_arrays(str(stored["about"]), stored)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: holds no poses ({error}); compute them again") from error


TRACK_ARRAYS = ("frame_indices", "seconds", "keypoints", "boxes_xyxy", "scores", "observed")


def read_poses(
    video: str | Path,
    *,
    fps: float = 12.5,
    max_people: int = 10,
    finder: PoseFinder | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    detect_every_seconds: float = DETECT_EVERY_SECONDS,
    **limits: Any,
) -> PoseTracks:
    """Find and follow everyone in a video, or in a stretch of it.

    Args:
        video: file or frame folder.
        fps: frames per second to look at; at most the video's own are.
        max_people: how many tracks to keep, the most present ones.
        finder: who finds the people; None: `pose_finder("auto")`.
        start_seconds, end_seconds: the stretch; None: from the start, to the end.
        detect_every_seconds: how often the finder's person detector is asked.
        limits: "max_pixels" and "max_seconds" of `open_video`; None is its own.

    Raises:
        VideoError: if the video cannot be read.
        UserError: if `fps` or `max_people` is out of range.
    """
    if not fps > 0:
        raise UserError(f"fps is above 0, got {fps}")
    if max_people < 1:
        raise UserError(f"max_people is at least 1, got {max_people}")
    finder = pose_finder("auto") if finder is None else finder
    given = {name: value for name, value in limits.items() if value is not None}
    with open_video(video, **given) as reader:
        first, stop = reader.frame_range(start_seconds, end_seconds)
        every = sorted(set(frames_at_rate(reader.frame_seconds, fps)))
        indices = [index for index in every if first <= index < stop] or [first]
        looked = follow(reader, indices, finder, detect_every_seconds=detect_every_seconds)
        moments = list(looked)
        found = gathered(
            moments,
            video=str(video),
            width=reader.width,
            height=reader.height,
            max_people=max_people,
        )
    return replace(found, fps=fps)


def poses_of_frames(
    clip: Clip, *, finder: PoseFinder | None = None, max_people: int = 10
) -> PoseTracks:
    """Find and follow everyone in frames that are already decoded.

    Args:
        clip: frames of rising times, all of which are looked at.
        finder, max_people: as of `read_poses`.
    """
    H, W = clip.frames.shape[-2:]
    follower = Follower(pose_finder("auto") if finder is None else finder, video=clip.path)
    moments = [
        follower(frame, index, seconds)
        for frame, index, seconds in zip(
            clip.frames, clip.frame_indices, clip.frame_seconds, strict=True
        )
    ]
    return gathered(moments, video=clip.path, width=W, height=H, max_people=max_people)


def gathered(
    moments: Sequence[TrackedFrame], *, video: str, width: int, height: int, max_people: int = 10
) -> PoseTracks:
    """Return the people of frames that were looked at one after the other.

    Args:
        moments: of rising times.
        video: its name.
        width, height: of a frame, in pixels.
        max_people: how many tracks to keep, the most present ones.
    """
    seconds = np.array([moment.seconds for moment in moments])
    span = float(seconds[-1] - seconds[0]) if len(moments) > 1 else 0.0
    return PoseTracks(
        video=video,
        width=width,
        height=height,
        fps=(len(moments) - 1) / span if span > 0 else 1.0,
        frame_indices=np.array([moment.frame_index for moment in moments], np.int64),
        seconds=seconds,
        tracks=_tracks(moments, aspect=width / height, max_people=max_people),
    )


def others_at(
    found: PoseTracks, person: PoseTrack, starts: Sequence[float], sampling: PoseSampling
) -> Tensor:
    """Return everyone else at the moments of a person's windows, (N, M, T, 17, 3); zeros where not
    found.

    Args:
        starts: seconds at which the N windows start.
    """
    others = [track for track in found.tracks if track is not person]
    windows = np.zeros((len(starts), len(others), sampling.num_frames, 17, 3), np.float32)
    for number, other in enumerate(others):
        for place, start in enumerate(starts):
            if start <= other.seconds[-1] and start + sampling.seconds >= other.seconds[0]:
                moments = start + sampling.times
                windows[place, number] = at_moments(other.seconds, other.keypoints, moments)
    return torch.from_numpy(windows)


def _tracks(
    moments: Sequence[TrackedFrame], *, aspect: float, max_people: int
) -> tuple[PoseTrack, ...]:
    """Gather the moments of each track, bridge short gaps, and keep the most present tracks."""
    seen: dict[int, list[tuple[TrackedFrame, int]]] = defaultdict(list)
    for moment in moments:
        for person, number in enumerate(moment.numbers):
            seen[number].append((moment, person))

    tracks = []
    for number, entries in seen.items():
        if len(entries) < min(MIN_OBSERVED, len(moments)):
            continue
        keypoints = np.stack([moment.people.keypoints[person] for moment, person in entries])
        boxes = np.stack([moment.people.boxes_xyxy_norm[person] for moment, person in entries])
        track = PoseTrack(
            number=number,
            frame_indices=np.array([moment.frame_index for moment, _ in entries], np.int64),
            seconds=np.array([moment.seconds for moment, _ in entries]),
            keypoints=keypoints * np.array([aspect, 1, 1], np.float32),
            boxes_xyxy=boxes * np.array([aspect, 1, aspect, 1], np.float32),
            scores=np.array([m.people.scores[person] for m, person in entries], np.float32),
            observed=np.ones(len(entries), bool),
        )
        tracks.append(_bridged(track, moments))
    return tuple(sorted(tracks, key=_presence, reverse=True)[:max_people])


def _presence(track: PoseTrack) -> float:
    height = track.boxes_xyxy[:, 3] - track.boxes_xyxy[:, 1]
    return float((track.scores * height * track.observed).sum())


def _bridged(track: PoseTrack, moments: Sequence[TrackedFrame]) -> PoseTrack:
    """Fill gaps of at most `MAX_BRIDGED_SECONDS` with straight lines."""
    times = np.array([moment.seconds for moment in moments])
    indices = np.array([moment.frame_index for moment in moments], np.int64)
    after = np.searchsorted(track.seconds, times, side="left").clip(0, len(track.seconds) - 1)
    before = (np.searchsorted(track.seconds, times, side="right") - 1).clip(0)
    inside = (times >= track.seconds[0]) & (times <= track.seconds[-1])
    gap = track.seconds[after] - track.seconds[before]
    keep = inside & (gap <= MAX_BRIDGED_SECONDS)

    times, indices, before, after, gap = (v[keep] for v in (times, indices, before, after, gap))
    share = np.where(gap > 0, (times - track.seconds[before]) / np.maximum(gap, 1e-9), 0)
    share = share.astype(np.float32)
    observed = gap == 0

    def between(values: Array) -> Array:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return (1 - weight) * values[before] + weight * values[after]

    keypoints = between(track.keypoints)
    keypoints[~observed, :, 2] *= BRIDGED_SCORE
    scores = between(track.scores)
    scores[~observed] *= BRIDGED_SCORE
    return PoseTrack(
        number=track.number,
        frame_indices=indices,
        seconds=times,
        keypoints=keypoints,
        boxes_xyxy=between(track.boxes_xyxy),
        scores=scores,
        observed=observed,
    )
