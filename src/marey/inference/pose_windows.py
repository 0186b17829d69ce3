"""The windows of the people of a video: what a pose model is asked, and how its answers become one.

Legend: W windows of all people of a video, K classes, T moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marey.persons.pose_tracks import PoseTracks, others_at
from marey.transforms.keypoints import HEAD, NUM_KEYPOINTS, TRUNK
from marey.transforms.pose_clip import (
    PoseSampling,
    at_moments,
    cut_windows,
    normalise_pose,
    with_nearest,
)

STILL = 0.15
"""Share that a person who does not move at all has of the say of one whose limbs move by a body
height a second: a video is named after what is done in it, not after who stands by."""

SURE = 0.3
"""Keypoints below this score are too unsteady to say how much a person moves."""


@dataclass(frozen=True, kw_only=True)
class PoseClips:
    """The windows of everyone in a video."""

    clips: Tensor
    """(W, T, P * 17, 3), normalised; the person first, then whoever is nearest."""
    tracks: tuple[int, ...]
    """(W,), number of the person."""
    start_seconds: tuple[float, ...]
    """(W,)."""
    weight: Tensor
    """(W,), how much each window has to say: larger, surer and more active people more."""

    def __len__(self) -> int:
        return len(self.tracks)


def cut_tracks(
    found: PoseTracks, sampling: PoseSampling, span: tuple[float, float] | None = None
) -> PoseClips:
    """Cut the tracks of a video into windows.

    Args:
        found: people with poses.
        span: seconds from and to which to look; None: the whole video.
    """
    clips, numbers, starts, weights = [], [], [], []
    for track in found.tracks:
        begin, end = track.seconds[0], track.seconds[-1]
        if span is not None:
            begin, end = max(begin, span[0]), min(end, span[1])
            if end < begin:
                continue
        times, windows = cut_windows(track.seconds, track.keypoints, sampling, (begin, end))
        if not len(windows):
            continue
        shown = windows
        if sampling.num_persons > 1:
            others = others_at(found, track, times, sampling)
            shown = with_nearest(windows, others, sampling.min_score)
        clips.append(normalise_pose(shown, sampling.min_score))
        numbers += [track.number] * len(windows)
        starts += times
        weights.append(window_weight(windows, clips[-1], sampling.fps))
    empty = torch.zeros(0, *sampling.shape)
    return PoseClips(
        clips=torch.cat(clips) if clips else empty,
        tracks=tuple(numbers),
        start_seconds=tuple(starts),
        weight=torch.cat(weights) if weights else torch.zeros(0),
    )


def windows_at(found: PoseTracks, start_seconds: float, sampling: PoseSampling) -> PoseClips:
    """Return one window of everyone who is seen at the same T moments, the first person alone in
    each.

    Args:
        found: people with poses.
        start_seconds: of the window.
    """
    moments = start_seconds + sampling.times
    numbers, windows = [], []
    for track in found.tracks:
        window = at_moments(track.seconds, track.keypoints, moments)
        if (window[..., 2].max(-1) > 0).mean() >= sampling.min_seen:
            numbers.append(track.number)
            windows.append(torch.from_numpy(window))
    if not windows:
        nobody = torch.zeros(0, sampling.num_frames, NUM_KEYPOINTS, 3)
        return PoseClips(clips=nobody, tracks=(), start_seconds=(), weight=torch.zeros(0))
    together = torch.stack(windows)
    clips = normalise_pose(together, sampling.min_score)
    return PoseClips(
        clips=clips,
        tracks=tuple(numbers),
        start_seconds=(start_seconds,) * len(numbers),
        weight=window_weight(together, clips, sampling.fps),
    )


def main_window(clips: PoseClips) -> int:
    """Return the number of the window with most to say, people who are seen longer first."""
    seen = (clips.clips[..., 2] > 0).any(-1).float().mean(-1)
    return int((clips.weight * seen).argmax())


def window_weight(windows: Tensor, clips: Tensor, fps: float) -> Tensor:
    """Return how much windows (W, T, 17, 3) of one person have to say, (W,): the person's height
    in the picture times how sure the keypoints are times how much the limbs move.

    Args:
        windows: x, y in frame heights, score.
        clips: the same, normalised, (W, T, P * 17, 3).
        fps: moments a second.
    """
    seen = windows[..., 2] > 0
    score = windows[..., 2].sum((1, 2)) / seen.sum((1, 2)).clamp_min(1)
    high = windows[..., 1].masked_fill(~seen, -torch.inf).amax(2)
    low = windows[..., 1].masked_fill(~seen, torch.inf).amin(2)
    height = (high - low).nan_to_num(0.0, 0.0, 0.0).clamp_min(0).amax(1)
    return height * score * (STILL + limb_speed(clips, fps))


def limb_speed(clips: Tensor, fps: float) -> Tensor:
    """Return how fast the limbs of a person move around the trunk, (W,): the mean over keypoints
    below the head, in body heights a second, of those seen surely at both moments; at most 1."""
    sure = clips[..., 2] >= SURE  # (W, T, P * 17); the first 17 are the person's own
    trunk = list(TRUNK)
    share = sure[..., trunk].to(clips.dtype)[..., None]
    middle = (clips[..., trunk, :2] * share).sum(2) / share.sum(2).clamp_min(1)
    local = clips[..., len(HEAD) : NUM_KEYPOINTS, :2] - middle[:, :, None]
    limbs = sure[..., len(HEAD) : NUM_KEYPOINTS] & sure[..., trunk].any(-1, keepdim=True)
    both = limbs[:, 1:] & limbs[:, :-1]
    speed = (local[:, 1:] - local[:, :-1]).norm(dim=-1) * fps * both
    return (speed.sum((1, 2)) / both.sum((1, 2)).clamp_min(1)).clamp_max(1.0)


def fuse(probabilities: Tensor, clips: PoseClips) -> Tensor:
    """Return the video's probabilities (K,): the weighted mean over its windows (W, K)."""
    share = clips.weight.to(probabilities) / clips.weight.sum().clamp_min(1e-9)
    return share @ probabilities


def fuse_by_track(probabilities: Tensor, clips: PoseClips) -> dict[int, Tensor]:
    """Return each person's probabilities (K,), people in the order of their first window."""
    numbers = torch.tensor(clips.tracks)
    answers = {}
    for number in dict.fromkeys(clips.tracks):
        mine = numbers == number
        share = clips.weight[mine] / clips.weight[mine].sum().clamp_min(1e-9)
        answers[number] = share.to(probabilities) @ probabilities[mine]
    return answers
