"""The order of a video's frames, or of a person's moments, recovered from a model's temporal
attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.errors import UserError, VideoError
from marey.inference.pose_windows import cut_tracks
from marey.inference.poses import PosePredictor
from marey.metrics.order import chance_order_accuracy, order_accuracy
from marey.order.correction import check_distinct_frames, permute_frames, recover_order
from marey.order.permutations import random_permutations
from marey.persons.pose_tracks import PoseTracks
from marey.transforms.preprocess import Preprocess
from marey.video.decode import VideoReader, open_video


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
    """float32, (T, T), the directed graph the path was found on."""
    frame_seconds: tuple[float, ...]
    """When each of the frames, in the order given, is shown in the video."""
    shuffled: bool

    @property
    def order_accuracy(self) -> float | None:
        """OrderAcc (Eq. 15), None where the video was not shuffled by us and the truth is therefore
        not known."""
        return float(order_accuracy(self.path[None], self.order[None])) if self.shuffled else None

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
            "error": None,
        }


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
    """Recover the order of the T moments of the window that has most to say.

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
    if not len(clips):
        raise UserError(
            f"{video}: nobody was found for long enough to put their moments in order; choose a "
            "part with a person in it (--window START END), or --model marey-mini-order for "
            "pictures"
        )
    seen = (clips.clips[..., 2] > 0).any(-1).float().mean(-1)
    main = int((clips.weight * seen).argmax())
    window = clips.clips[main]  # (T, P * 17, 3)
    check_distinct_frames(window, name=str(video))

    T = len(window)
    order = torch.arange(T)
    if shuffle is not None:
        order = random_permutations(1, T, torch.Generator().manual_seed(shuffle))[0]
    shuffled = permute_frames(window[None], order[None]).to(predictor.device)
    recovered = recover_order(predictor.model, shuffled, method=method)

    times = [clips.start_seconds[main] + time for time in predictor.sampling.times.tolist()]
    with open_video(video) as reader:
        within = [min(max(time, 0.0), reader.duration_seconds) for time in times]
        indices = reader.indices_at_seconds(within)
        chosen = sorted(set(indices))
        frames = dict(zip(chosen, reader.frames_at(chosen).frames, strict=True))
    return VideoOrder(
        video=str(video),
        frames=torch.stack([frames[indices[time]] for time in order.tolist()]),
        order=order,
        path=recovered.path[0].cpu(),
        weights=recovered.weights[0].cpu(),
        frame_seconds=tuple(times[time] for time in order.tolist()),
        shuffled=shuffle is not None,
    )


def order_many(
    checkpoint: Checkpoint,
    videos: Sequence[str | Path],
    *,
    device: str = "cpu",
    **options: Any,
) -> Iterator[tuple[VideoOrder | None, dict[str, Any]]]:
    """Order every video that can be ordered and name every other.

    Args:
        checkpoint: of a model of clips (`order_video`) or of poses (`order_poses`).
        device: where the model runs.
        options: of the function that orders one video.

    Yields:
        (answer, its JSON entry); the answer is None and the entry has an "error" for a video that
        cannot be read, is too short, repeats a frame, or, with poses, shows nobody.
    """
    order_one: Callable[..., VideoOrder]
    if checkpoint.task == "poses":
        predictor = PosePredictor(checkpoint, device=device)
        order_one = partial(order_poses, predictor)
        chance = chance_order_accuracy(predictor.sampling.num_frames)
    else:
        order_one = partial(order_video, checkpoint, device=device)
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
                    "error": str(error),
                },
            )
        else:
            yield found, found.to_dict()
