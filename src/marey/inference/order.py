"""The order of a video's frames: of the moments of its people by appearance and the arrow of time,
or of its frames by a model's temporal attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.checkpoints.load import load_checkpoint
from marey.errors import UserError, VideoError, unknown_name
from marey.inference.direction import Direction, check_direction_model, direction_of
from marey.inference.pose_windows import PoseClips, cut_tracks, main_window, windows_at
from marey.inference.poses import PosePredictor
from marey.metrics.order import chance_order_accuracy, order_accuracy
from marey.order.correction import (
    METHODS,
    check_distinct_frames,
    frame_distances,
    permute_frames,
    recover_order,
)
from marey.order.path import shortest_path
from marey.order.permutations import random_permutations
from marey.persons.pose_tracks import PoseTracks
from marey.transforms.preprocess import Preprocess
from marey.video.decode import VideoReader, open_video

ARROW = "arrow"
"""The method of `order_people`."""

FRAME_MODEL = "marey-mini-order"
"""Orders the frames of a video without people."""


@dataclass(frozen=True, kw_only=True)
class VideoOrder:
    """The recovered order of some frames of one video."""

    video: str
    frames: Tensor
    """uint8, (T, C, H, W), as they were given to the model: shuffled, if asked for."""
    order: Tensor
    """int64, (T,), the permutation applied; 0, 1, ... where nothing was shuffled."""
    path: Tensor
    """int64, (T,), positions in `frames`, in recovered chronological order."""
    weights: Tensor
    """float32, (T, T), the directed graph: of method "arrow" how alike two frames look, negative
    where the path has the first after the second; else the model's."""
    frame_seconds: tuple[float, ...]
    """When each of the frames, in the order given, is shown in the video."""
    shuffled: bool
    method: str
    """How the order was read."""
    direction: Direction | None = None
    """How probable it is that the path runs forwards in time, of method "arrow"."""
    note: str | None = None
    """What the user should know about the way the order was read."""

    @property
    def order_accuracy(self) -> float | None:
        """OrderAcc (Eq. 15), None where the video was not shuffled by us and the truth is therefore
        not known."""
        return float(order_accuracy(self.path[None], self.order[None])) if self.shuffled else None

    @property
    def played(self) -> str | None:
        """How the video was played, "forwards" or "backwards", as far as that is told; None where
        it was shuffled by us."""
        if self.direction is None or not self.direction.told or self.shuffled:
            return None
        rising = order_accuracy(self.path[None], self.order[None])
        falling = order_accuracy(self.path.flip(0)[None], self.order[None])
        return "forwards" if float(rising) >= float(falling) else "backwards"

    @property
    def chance(self) -> float:
        """Mean OrderAcc of a random path."""
        return chance_order_accuracy(len(self.path))

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of this video in the JSON of `marey order`."""
        return {
            "video": self.video,
            "order": self.path.tolist(),
            "order_accuracy": self.order_accuracy,
            "chance": round(self.chance, 6),
            "shuffle": self.order.tolist() if self.shuffled else None,
            "frame_seconds": [round(seconds, 4) for seconds in self.frame_seconds],
            "method": self.method,
            "direction": None
            if self.direction is None
            else {**self.direction.to_dict(), "played": self.played},
            "note": self.note,
            "error": None,
        }


class NobodyError(UserError):
    """Nobody was found for long enough."""


def order_video(
    checkpoint: Checkpoint,
    video: str | Path,
    *,
    shuffle: int | None = None,
    window_seconds: tuple[float, float] | None = None,
    method: str = "path",
    device: str = "cpu",
) -> VideoOrder:
    """Recover the order of T distinct frames of a video.

    Args:
        checkpoint: a model with temporal attention and its preprocessing, which says T.
        video: file or folder of frames.
        shuffle: seed of the permutation applied to the frames first (uniform over all T!); None
            takes them as they are.
        window_seconds: part [start, end) of the video to sample T frames from, equally spaced; None
            takes the clip the model's preprocessing samples, and the whole video where that would
            repeat a frame.
        method: how the order is read from the attention, see `recover_order`.
        device: where the model runs.

    Raises:
        VideoError: if the video cannot be read, or the window is outside it.
        UserError: if the window has fewer than T frames, two of the frames are the same picture, or
            the model gives no temporal attention.
    """
    preprocess = checkpoint.clip_preprocess
    T = preprocess.sampling.num_frames
    with open_video(video) as reader:
        indices = distinct_indices(reader, preprocess, window_seconds)
        clip = reader.frames_at(indices, held=T)
    check_distinct_frames(clip.frames, name=str(video))
    order = torch.arange(T)
    if shuffle is not None:
        order = random_permutations(1, T, torch.Generator().manual_seed(shuffle))[0]
    model = checkpoint.model.to(device).eval()
    ready = preprocess.clip(clip.frames)[:1].to(device)
    found = recover_order(model, permute_frames(ready, order[None].to(device)), method=method)
    seconds = tuple(clip.frame_seconds[time] for time in order.tolist())
    return VideoOrder(
        video=str(video),
        frames=clip.frames[order],
        order=order,
        path=found.path[0].cpu(),
        weights=found.weights[0].cpu(),
        frame_seconds=seconds,
        shuffled=shuffle is not None,
        method=method,
    )


def distinct_indices(
    reader: VideoReader, preprocess: Preprocess, window_seconds: tuple[float, float] | None = None
) -> list[int]:
    """Choose T distinct frames: the model's own clip, or the middles of T equal parts of a window.

    Raises:
        VideoError: if the window is outside the video.
        UserError: if there are fewer than T frames.
    """
    T = preprocess.sampling.num_frames
    first, stop = (
        (0, reader.num_frames) if window_seconds is None else reader.frame_range(*window_seconds)
    )
    if stop - first < T:
        raise UserError(
            f"{reader.path}: {stop - first} frames in the window, the model takes {T} distinct "
            "ones; choose a longer window (frames are never repeated or played back here)"
        )
    if window_seconds is None:
        own = preprocess.sampling.indices(reader.num_frames, fps=reader.fps)
        if len(set(own)) == T and own == sorted(own):
            return own
    return [first + int((part + 0.5) * (stop - first) / T) for part in range(T)]


def order_poses(
    predictor: PosePredictor,
    video: str | Path,
    *,
    found: PoseTracks | None = None,
    shuffle: int | None = None,
    window_seconds: tuple[float, float] | None = None,
    method: str = "path",
) -> VideoOrder:
    """Recover the order of the T moments of the window that has most to say, from a model's
    directed attention.

    Args:
        predictor: of a model with temporal attention.
        video: file or folder of frames.
        found: its people; None looks for them.
        shuffle: seed of the permutation applied to the moments first (uniform over all T!); None
            takes them as they are.
        window_seconds: part [start, end) of the video in which to look for the window.
        method: how the order is read from the attention, see `recover_order`.

    Raises:
        VideoError: if the video cannot be read.
        UserError: if nobody was found for long enough, nobody moves, or the model gives no temporal
            attention.
    """
    found = predictor.read(video) if found is None else found
    clips = cut_tracks(found, predictor.sampling, window_seconds)
    check_somebody(clips, video)
    main = main_window(clips)
    window = clips.clips[main]  # (T, P * 17, 3)
    check_distinct_frames(window, name=str(video))
    order = shuffled_order(len(window), shuffle)
    shuffled = permute_frames(window[None], order[None]).to(predictor.device)
    recovered = recover_order(predictor.model, shuffled, method=method)
    times = [clips.start_seconds[main] + time for time in predictor.sampling.times.tolist()]
    return VideoOrder(
        video=str(video),
        frames=pictures_at(video, times)[order],
        order=order,
        path=recovered.path[0].cpu(),
        weights=recovered.weights[0].cpu(),
        frame_seconds=tuple(times[time] for time in order.tolist()),
        shuffled=shuffle is not None,
        method=method,
    )


def order_people(
    predictor: PosePredictor,
    direction: Checkpoint,
    video: str | Path,
    *,
    found: PoseTracks | None = None,
    shuffle: int | None = None,
    window_seconds: tuple[float, float] | None = None,
) -> VideoOrder:
    """Recover the order of the T moments of the window that has most to say: neighbours by
    appearance, the direction by the arrow of time.

    The shortest path through the pictures says which moments are neighbours. It runs forwards or
    backwards; which, is asked about the poses of everyone in the window, in the path's order. A
    path is turned round where "backwards" is more probable.

    Args:
        predictor: finds the people and chooses the window.
        direction: of an `ArrowOfTime`.
        video, found, shuffle, window_seconds: as of `order_poses`.

    Raises:
        VideoError: if the video cannot be read.
        NobodyError: if nobody was found for long enough.
        UserError: if two pictures are equal, or the checkpoint tells no direction.
    """
    check_direction_model(direction)
    sampling = predictor.sampling
    found = predictor.read(video) if found is None else found
    clips = cut_tracks(found, sampling, window_seconds)
    check_somebody(clips, video)
    start = clips.start_seconds[main_window(clips)]
    times = [start + time for time in sampling.times.tolist()]
    people = windows_at(found, start, sampling)

    order = shuffled_order(len(times), shuffle)
    pictures = pictures_at(video, times)[order]
    distances = frame_distances(pictures[None])  # (1, T, T)
    path = shortest_path(distances)[0]
    along = replace(people, clips=people.clips[:, order][:, path])
    answer = direction_of(direction, along)
    if answer.forwards < 0.5:
        path, answer = path.flip(0), answer.reversed()
    return VideoOrder(
        video=str(video),
        frames=pictures,
        order=order,
        path=path,
        weights=signed_likeness(distances[0], path),
        frame_seconds=tuple(times[time] for time in order.tolist()),
        shuffled=shuffle is not None,
        method=ARROW,
        direction=answer,
    )


def signed_likeness(distances: Tensor, path: Tensor) -> Tensor:
    """Return how alike frames look (T, T), 1 for equal ones and 0 for the least alike, negative
    where the path visits the first after the second."""
    likeness = 1 - distances / distances.max().clamp_min(1e-9)
    rank = path.argsort()
    return torch.where(rank[:, None] <= rank[None], likeness, -likeness)


def check_somebody(clips: PoseClips, video: str | Path) -> None:
    """Raise a NobodyError where there is no window."""
    if not len(clips):
        raise NobodyError(
            f"{video}: nobody was found for long enough to put their moments in order; choose a "
            "part with a person in it (--window START END), or --model marey-mini-order for "
            "pictures"
        )


def shuffled_order(num_frames: int, seed: int | None) -> Tensor:
    """Return a permutation drawn by a seed, or the identity for None, int64 (T,)."""
    if seed is None:
        return torch.arange(num_frames)
    return random_permutations(1, num_frames, torch.Generator().manual_seed(seed))[0]


def pictures_at(video: str | Path, seconds: Sequence[float]) -> Tensor:
    """Return the frames shown at times of a video, uint8 (T, 3, H, W); times beyond its ends take
    the first or the last frame."""
    with open_video(video) as reader:
        within = [min(max(time, 0.0), reader.duration_seconds) for time in seconds]
        indices = reader.indices_at_seconds(within)
        chosen = sorted(set(indices))
        frames = reader.frames_at(chosen).frames
    return frames[[chosen.index(index) for index in indices]]


def order_many(
    checkpoint: Checkpoint,
    videos: Sequence[str | Path],
    *,
    device: str = "cpu",
    method: str | None = None,
    direction: str = "marey-arrow",
    **options: Any,
) -> Iterator[tuple[VideoOrder | None, dict[str, Any]]]:
    """Order every video that can be ordered and name every other.

    Args:
        checkpoint: of a model of poses or of clips.
        device: where the model runs.
        method: "arrow" (`order_people`; the default of a model of poses), or one of `METHODS`
            (`order_poses`, `order_video`; the default of a model of clips is "oriented"). By
            default a video without people is ordered by its frames, with `FRAME_MODEL`.
        direction: the model that "arrow" asks.
        options: "shuffle" and "window_seconds" of the function that orders one video.

    Yields:
        (answer, its JSON entry); the answer is None and the entry has an "error" for a video that
        cannot be read, is too short, repeats a frame, or shows nobody although a method of poses
        was asked for.

    Raises:
        UserError: if a method is unknown, "arrow" is asked of a model of clips, or the only video
            cannot be ordered.
    """
    is_poses = checkpoint.task == "poses"
    if method is not None and method not in (ARROW, *METHODS):
        raise unknown_name("method of order correction", method, (ARROW, *METHODS))
    if method == ARROW and not is_poses:
        raise UserError(
            f"method 'arrow' asks a person's poses, and {checkpoint.source} reads clips; use "
            "--model marey-mini, or --method oriented"
        )
    order_one: Callable[..., VideoOrder]
    if is_poses:
        predictor = PosePredictor(checkpoint, device=device)
        chance = chance_order_accuracy(predictor.sampling.num_frames)
        if method in METHODS:
            order_one = partial(order_poses, predictor, method=method)
        else:
            arrow = load_checkpoint(direction)
            check_direction_model(arrow)
            order_one = partial(order_people, predictor, arrow)
            if method is None:
                order_one = partial(order_people_or_frames, order_one, device=device)
    else:
        order_one = partial(order_video, checkpoint, method=method or "oriented", device=device)
        chance = chance_order_accuracy(checkpoint.clip_preprocess.sampling.num_frames)
    for video in videos:
        try:
            found = order_one(video, **options)
        except (VideoError, UserError) as error:
            if len(videos) == 1 and not isinstance(error, VideoError):
                raise
            yield (
                None,
                {
                    "video": str(video),
                    "order": [],
                    "order_accuracy": None,
                    "chance": round(chance, 6),
                    "shuffle": None,
                    "frame_seconds": [],
                    "method": method,
                    "direction": None,
                    "note": None,
                    "error": str(error),
                },
            )
        else:
            yield found, found.to_dict()


def order_people_or_frames(
    by_people: Callable[..., VideoOrder], video: str | Path, *, device: str, **options: Any
) -> VideoOrder:
    """Order a video by its people, or, where nobody is found, by its frames with `FRAME_MODEL`.

    Args:
        by_people: `order_people` of a model.
        video, options: as of `order_video`.
        device: where the model of frames runs.
    """
    try:
        return by_people(video, **options)
    except NobodyError:
        frames = load_checkpoint(FRAME_MODEL)
        found = order_video(frames, video, method="oriented", device=device, **options)
        note = (
            f"nobody was found for long enough: {len(found.path)} frames of the clip, neighbours "
            f"by appearance, direction by {FRAME_MODEL}, which is at chance on real video"
        )
        return replace(found, note=note)
