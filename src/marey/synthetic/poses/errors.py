"""What a pose network makes of true keypoints: scores, jitter, swaps, lost limbs; fitted to MoveNet
on real video.

Measured on tracks of 22 videos (17 tracks of UT-Interaction, about 200 pixels high, and 40 of
street and surveillance video), 12.5 frames a second, as the second difference of positions over
sqrt(1.5), in body heights: median length divided by .83, and its 90th percentile. No label was
used.

    score          .05    .15    .25    .35    .45    .55    .65    .85
    deviation      .056   .042   .030   .016   .0064  .0039  .0034  .0034
    90th percentile .11   .11    .077   .052   .029   .019   .014   .011
    score of a track, 5 to 95 %: .51 to .62 (UT-Interaction), .17 to .47 (street); hips .15 above
    it, wrists .15 below standard deviation of a score over time .10, correlation from frame to
    frame .3 to .7
    left and right exchanged: .005 to .027 of the frames of a pair; frames without a find: .02 to
    .09
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from marey.transforms.keypoints import MIRRORED

Array = NDArray[np.float64]

SCORES = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.85)
DEVIATIONS = (0.056, 0.042, 0.030, 0.016, 0.0064, 0.0039, 0.0034, 0.0034)
"""Standard deviation of the jitter per axis at these scores, in body heights."""

BEYOND = 2.2
"""The tenth of all errors that is largest is drawn so many times wider."""

OFFSETS = (
    -0.03,
    0,
    0,
    0,
    0,
    0.06,
    0.06,
    -0.07,
    -0.07,
    -0.13,
    -0.13,
    0.15,
    0.15,
    0.0,
    0.0,
    -0.02,
    -0.02,
)
"""Mean score of each keypoint, relative to the person's."""

PAIRS = ((5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))


def observe(points: Array, depth: Array, rng: Generator) -> Array:
    """Return what the network reports of a person.

    Args:
        points: (F, 17, 2), true places in the picture, any unit; x right, y down.
        depth: (F, 17), metres, larger is farther.

    Returns:
        (F, 17, 3): x, y, score in [0, 1]; a score of 0 in all keypoints of a moment means no find.
    """
    F = len(points)
    height = max(float(np.percentile(np.ptp(points, axis=1).max(-1), 90)), 1e-6)
    quality = rng.uniform(0.5, 0.72) if rng.random() < 0.45 else rng.uniform(0.2, 0.5)

    score = quality + np.array(OFFSETS) + rng.normal(0, 0.06, 17) + wander(rng, F, 17, 0.09)
    hidden = behind_trunk(points, depth)
    score = score - hidden * rng.uniform(0.08, 0.3)
    speed = np.linalg.norm(np.gradient(points, axis=0), axis=-1) / height  # heights per moment
    score = score - np.minimum(0.6 * speed, 0.15)

    seen = points.copy()
    seen, score = lose_parts(seen, score, height, rng)
    score = np.clip(score, 0.03, 0.92)

    deviation = np.interp(score, SCORES, DEVIATIONS) * height * rng.uniform(0.7, 1.5)
    wide = np.where(rng.random((F, 17)) < 0.1, BEYOND, 1.0)
    seen = seen + (deviation * wide)[..., None] * rng.normal(0, 1, (F, 17, 2))
    slow = height * rng.uniform(0.001, 0.012)  # errors that stay
    seen = seen + slow * rng.normal(0, 1, (17, 2)) + wander(rng, F, 34, slow).reshape(F, 17, 2)

    seen, score = exchange_sides(seen, score, rng)
    found = np.concatenate([seen, score[..., None]], axis=-1)
    missing = rng.random(F) < (rng.uniform(0, 0.12) if rng.random() < 0.5 else 0)
    found[missing] = 0
    return found


def wander(rng: Generator, F: int, width: int, size: float) -> Array:
    """Draw random walks that return (first-order, .6 from moment to moment): (F, width) of
    deviation `size`."""
    out = np.empty((F, width))
    out[0] = rng.normal(0, size, width)
    for frame in range(1, F):
        out[frame] = 0.6 * out[frame - 1] + rng.normal(0, 0.8 * size, width)
    return out


def behind_trunk(points: Array, depth: Array) -> Array:
    """Say which joints (F, 17) lie behind the person's own trunk or on its far side."""
    trunk = points[:, [5, 6, 11, 12]]
    low, high = trunk.min(1), trunk.max(1)
    reach = 0.25 * (high[:, 1] - low[:, 1])[:, None]
    inside = (points[..., 0] > low[:, None, 0] - reach) & (
        points[..., 0] < high[:, None, 0] + reach
    )
    inside &= (points[..., 1] > low[:, None, 1] - reach) & (
        points[..., 1] < high[:, None, 1] + reach
    )
    farther = depth - depth[:, [5, 6, 11, 12]].mean(1, keepdims=True)
    return np.clip((inside * 0.7 + 0.3) * farther / 0.15, 0, 1)


def lose_parts(points: Array, score: Array, height: float, rng: Generator) -> tuple[Array, Array]:
    """Hide what the picture's edge cuts off or something stands in front of; its keypoints are
    guesses."""
    top, bottom = points[..., 1].min(), points[..., 1].max()
    chance = rng.random()
    cut = np.zeros(points.shape[:2], bool)
    if chance < 0.13:  # the lower edge: no legs
        edge = top + rng.uniform(0.45, 0.95) * (bottom - top)
        cut = points[..., 1] > edge
        points[..., 1] = np.minimum(points[..., 1], edge)
    elif chance < 0.18:  # a side edge
        middle, sign = np.median(points[..., 0]), rng.choice([-1, 1])
        edge = middle + sign * rng.uniform(0.05, 0.4) * height
        cut = sign * (points[..., 0] - edge) > 0
        points[..., 0] = np.where(cut, edge, points[..., 0])
    elif chance < 0.30:  # something in front
        centre = points[:, rng.integers(17)].mean(0)
        size = height * rng.uniform(0.08, 0.25, 2)
        cut = (np.abs(points - centre) < size).all(-1)
    guess = rng.uniform(0.02, 0.06) * height
    points = points + cut[..., None] * guess * rng.normal(0, 1, points.shape)
    score = np.where(cut, np.minimum(score - 0.2, rng.uniform(0.05, 0.3)), score)
    if rng.random() < 0.1:  # a limb is lost for a while
        pair = PAIRS[rng.integers(len(PAIRS))]
        start = rng.integers(len(points))
        score[start : start + rng.integers(2, len(points) + 1), pair[rng.integers(2)]] -= 0.35
    return points, score


def exchange_sides(points: Array, score: Array, rng: Generator) -> tuple[Array, Array]:
    """Exchange left and right of some pairs, or of the whole person, for a few moments."""
    F = len(points)
    points, score = points.copy(), score.copy()
    rate = rng.uniform(0, 0.02)
    for first, second in PAIRS:
        for start in np.flatnonzero(rng.random(F) < rate):
            span = slice(start, start + 1 + rng.geometric(0.5))
            points[span, [first, second]] = points[span, [second, first]]
            score[span, [first, second]] = score[span, [second, first]]
    if rng.random() < 0.06:
        start = rng.integers(F)
        span = slice(start, start + rng.integers(1, F + 1))
        points[span], score[span] = points[span][:, list(MIRRORED)], score[span][:, list(MIRRORED)]
    return points, score


def confuse(found: Array, other: Array, farther: Array, rng: Generator) -> Array:
    """Let somebody else get in the way: keypoints behind them score low, and some are mistaken for
    theirs.

    Args:
        found: (F, 17, 3), from `observe`.
        other: (F, 17, 2), the other person's true places in the same picture.
        farther: (F, 17), metres that the other's keypoint is farther than the person's own.

    Returns:
        (F, 17, 3).
    """
    F = len(found)
    height = max(float(np.percentile(np.ptp(found[..., :2], axis=1).max(-1), 90)), 1e-6)
    found, missing = found.copy(), found[..., 2].max(1) == 0
    trunk = other[:, [5, 6, 11, 12]]
    reach = 0.06 * height
    inside = (found[..., :2] > trunk.min(1)[:, None] - reach) & (
        found[..., :2] < trunk.max(1)[:, None] + reach
    )
    covered = inside.all(-1) & (farther.mean(1, keepdims=True) < 0)
    found[..., 2] -= covered * rng.uniform(0.1, 0.3)
    found[..., :2] += covered[..., None] * rng.normal(0, 0.03 * height, (F, 17, 2))

    near = np.linalg.norm(found[..., :2] - other, axis=-1) < 0.25 * height
    rate = rng.uniform(0, 0.06)
    for joint in range(17):
        for start in np.flatnonzero(near[:, joint] & (rng.random(F) < rate)):
            span = slice(start, start + 1 + rng.geometric(0.4))
            found[span, joint, :2] = other[span, joint]
    found[..., 2] = np.clip(found[..., 2], 0.03, 1)
    found[missing] = 0
    return found


def exchange_persons(found: Array, other: Array, depth: Array, rng: Generator) -> Array:
    """Let a track go over to somebody else for a while, or to the end, as trackers do where people
    cross.

    Args:
        found: (F, 17, 3), from `observe`.
        other: (F, 17, 2), the other person's true places in the same picture.
        depth: (F, 17), theirs, in metres.

    Returns:
        (F, 17, 3).
    """
    F = len(found)
    start = int(rng.integers(F))
    length = F if rng.random() < 0.5 else int(rng.integers(2, max(3, F // 3)))
    taken = found.copy()
    taken[start : start + length] = observe(other, depth, rng)[start : start + length]
    return taken
