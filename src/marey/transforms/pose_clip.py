"""From the keypoints of a person, and of whoever is near, to what a pose model reads.

Legend: T moments, P persons, 17 keypoints of COCO. Picture coordinates: x right, y down, one unit
both ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marey.errors import UserError
from marey.transforms.keypoints import NUM_KEYPOINTS, TRUNK


@dataclass(frozen=True, kw_only=True)
class PoseSampling:
    """How a track is cut into windows of T moments."""

    num_frames: int = 16
    """T."""
    fps: float = 8.0
    """Moments per second."""
    step_seconds: float = 0.5
    """From the start of a window to the next one's."""
    min_score: float = 0.15
    """Keypoints below it are not looked at: where a pose network is so unsure it is off by a tenth
    of the height."""
    min_seen: float = 0.4
    """A window counts if the person was found in so many of its moments, 0 to 1."""
    num_persons: int = 1
    """P, the person and those nearest, at most 2."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types, marked as those of poses."""
        return {"kind": "pose", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PoseSampling:
        """Build from what `to_dict` gave."""
        return cls(**{name: value for name, value in values.items() if name != "kind"})

    def __post_init__(self) -> None:
        if self.num_persons not in (1, 2):
            raise UserError(f"num_persons is {self.num_persons}; a pose model reads 1 or 2 persons")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, P * 17, 3), of a window."""
        return self.num_frames, self.num_persons * NUM_KEYPOINTS, 3

    @property
    def seconds(self) -> float:
        """Length of a window."""
        return self.num_frames / self.fps

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds of the T moments from the start of a window."""
        return np.arange(self.num_frames) / self.fps


def normalise_pose(keypoints: Tensor, min_score: float = 0.15) -> Tensor:
    """Express a window in body heights around the (first) person's own middle.

    The middle is the mean of the median places of both shoulders and hips; the height is the 90th
    percentile over the moments of the longer side of the box around what is seen. Both are of the
    whole window, so the person's way through it stays, and neither changes when the moments are put
    in another order.

    Args:
        keypoints: float, (..., T, P * 17, 3): x, y in one unit, score in [0, 1].
        min_score: keypoints below it become zeros, score included.

    Returns:
        (..., T, P * 17, 3): x, y in body heights, score.
    """
    score = keypoints[..., 2]
    seen = score >= min_score
    places = keypoints[..., :2].masked_fill(~seen[..., None], torch.nan)

    # the median place of each keypoint of the trunk, and the mean of these
    person = places[..., :NUM_KEYPOINTS, :]
    trunk = person[..., list(TRUNK), :].nanmedian(dim=-3).values  # (..., 4, 2)
    anywhere = person.flatten(-3, -2).nanmedian(dim=-2).values
    middle = trunk.nanmean(dim=-2)
    middle = torch.where(middle.isnan(), anywhere, middle).nan_to_num(0.0)

    height = heights(keypoints[..., :NUM_KEYPOINTS, :], min_score)

    places = (places - middle[..., None, None, :]) / height[..., None, None, None]
    out = torch.cat((places.nan_to_num(0.0), score[..., None]), dim=-1)
    return out * seen[..., None]


def heights(keypoints: Tensor, min_score: float) -> Tensor:
    """Return the height of a person in a window (...,) of keypoints (..., T, 17, 3): the 90th
    percentile over the moments of the longer side of the box around what is seen."""
    seen = keypoints[..., 2:] >= min_score
    highest = keypoints[..., :2].masked_fill(~seen, -torch.inf).amax(-2)
    lowest = keypoints[..., :2].masked_fill(~seen, torch.inf).amin(-2)
    side = (highest - lowest).amax(-1)  # (..., T)
    side = side.masked_fill(~torch.isfinite(side), torch.nan)
    return side.nanquantile(0.9, dim=-1).nan_to_num(1.0).clamp_min(1e-6)


def cut_windows(
    seconds: Sequence[float] | NDArray[np.float64],
    keypoints: NDArray[np.float32],
    sampling: PoseSampling,
    span: tuple[float, float] | None = None,
) -> tuple[list[float], Tensor]:
    """Cut a track into windows.

    At each moment of a window stands the mean of the finds before and after it, weighed by
    nearness; a moment that is farther than .12 s from any find is empty (zeros).

    Args:
        seconds: (F,), when the person was found, in time order.
        keypoints: (F, 17, 3).
        sampling: length and spacing.
        span: seconds from and to which to look; None: the whole track. A span shorter than a window
            gives one window around its middle.

    Returns:
        Start of each window in seconds, and the windows (N, T, 17, 3), not normalised; N may be 0.

    Raises:
        UserError: if the shapes do not fit.
    """
    seconds = np.asarray(seconds, np.float64)
    if keypoints.shape != (len(seconds), NUM_KEYPOINTS, 3):
        raise UserError(
            f"keypoints have shape {keypoints.shape}, expected ({len(seconds)}, {NUM_KEYPOINTS}, 3)"
        )
    if not len(seconds):
        return [], torch.zeros(0, sampling.num_frames, NUM_KEYPOINTS, 3)
    low, high = (seconds[0], seconds[-1]) if span is None else span
    starts = window_starts(low, high, sampling)
    windows = np.stack([at_moments(seconds, keypoints, start + sampling.times) for start in starts])
    seen = (windows[..., 2].max(-1) > 0).mean(-1)
    kept = seen >= sampling.min_seen
    return [start for start, keep in zip(starts, kept, strict=True) if keep], torch.from_numpy(
        windows[kept]
    )


def cut_both_ways(
    seconds: Sequence[float] | NDArray[np.float64],
    keypoints: NDArray[np.float32],
    sampling: PoseSampling,
) -> Tensor:
    """Cut a track from its start and from its end, windows (N, T, 17, 3) as recorded.

    A moment between two finds is the mean of both, a moment on a find is not, and which are which
    depends on where the cutting starts. Cut from one end alone, this pattern tells a window from
    the same window reversed, whatever is shown; from both ends it says nothing of the direction.

    Args, Raises: as `cut_windows`.
    """
    seconds = np.asarray(seconds, np.float64)
    _, first = cut_windows(seconds, keypoints, sampling)
    _, second = cut_windows(-seconds[::-1], np.ascontiguousarray(keypoints[::-1]), sampling)
    return torch.cat((first, second.flip(1)))


def window_starts(low: float, high: float, sampling: PoseSampling) -> list[float]:
    """Return where windows start that cover [low, high] but for less than a fourth of a step; a
    shorter span has one window, around its middle."""
    length = (sampling.num_frames - 1) / sampling.fps
    if high - low <= length + 1e-6:
        return [float(low + high - length) / 2]
    starts = np.arange(low, high - length + 1e-6, sampling.step_seconds).tolist()
    if starts[-1] + length < high - sampling.step_seconds / 4:
        starts.append(float(high - length))
    return starts


NEAR_SECONDS = 0.12


def at_moments(
    seconds: NDArray[np.float64], keypoints: NDArray[np.float32], moments: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return keypoints (T, 17, 3) at moments (T,), between the finds before and after each; zeros
    where none is near.

    Between two finds of different certainty the surer one counts more.
    """
    after = np.clip(np.searchsorted(seconds, moments), 0, len(seconds) - 1)
    before = np.maximum(after - 1, 0)
    gap_before, gap_after = np.abs(moments - seconds[before]), np.abs(seconds[after] - moments)
    near_before, near_after = gap_before <= NEAR_SECONDS, gap_after <= NEAR_SECONDS

    # as in linear interpolation: the nearer of two counts as much as the other is far
    weight_before = near_before * np.where(near_after, gap_after + 1e-6, 1)
    weight_after = near_after * np.where(near_before, gap_before + 1e-6, 1)
    sure = np.stack([keypoints[before, :, 2] ** 2, keypoints[after, :, 2] ** 2])
    weight = np.stack([weight_before, weight_after])[..., None] * (sure + 1e-4)
    total = weight.sum(0)
    share = weight / np.maximum(total, 1e-12)
    mixed = (share[..., None] * np.stack([keypoints[before], keypoints[after]])).sum(0)
    mixed[total[:, 0] <= 0] = 0
    return mixed.astype(np.float32)


NEAR_HEIGHTS = 3.0
"""Somebody farther away than so many heights of a person takes no part in what that one does."""


def with_nearest(person: Tensor, others: Tensor, min_score: float) -> Tensor:
    """Return the windows of a person beside those of whoever is nearest: zeros where nobody is.

    Nearest: by the median distance of the middles over the moments in which both are seen, in a
    fourth of the moments at least.

    Args:
        person: (N, T, 17, 3), not normalised.
        others: (N, M, T, 17, 3), those of everyone else.
        min_score: keypoints below it are not looked at.

    Returns:
        (N, T, 2 * 17, 3).
    """
    nobody = torch.zeros_like(person)
    if not others.shape[1]:
        return torch.cat((person, nobody), dim=-2)
    mine, theirs = middles(person, min_score)[:, None], middles(others, min_score)
    apart = (mine - theirs).norm(dim=-1)  # (N, M, T), NaN where one of the two is not seen
    distance = apart.nanmedian(-1).values / heights(person, min_score)[:, None]
    together = (~apart.isnan()).float().mean(-1)
    distance = distance.masked_fill((together < 0.25) | distance.isnan(), torch.inf)
    nearest = distance.argmin(1)  # (N,)
    partner = others[torch.arange(len(others)), nearest]
    near = distance.amin(1) <= NEAR_HEIGHTS
    return torch.cat((person, torch.where(near[:, None, None, None], partner, nobody)), dim=-2)


def middles(keypoints: Tensor, min_score: float) -> Tensor:
    """Return the mean place of the seen keypoints (..., T, 2) of (..., T, 17, 3); NaN where none is
    seen."""
    seen = keypoints[..., 2] >= min_score
    return keypoints[..., :2].masked_fill(~seen[..., None], torch.nan).nanmean(-2)
