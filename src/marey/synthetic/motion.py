"""Captured human motions as functions of time, and the intervals of each split for every rendering
parameter.

The recordings are the text files of DeepMimic (Peng et al., SIGGRAPH 2018) inside the PyPI package
`pybullet`. A row holds: duration, root position (3), then rotations in the order chest, neck, right
hip, right knee, right ankle, right shoulder, right elbow, left hip, left knee, left ankle, left
shoulder, left elbow; a joint is a quaternion (w, x, y, z) or, for knees and elbows, one angle. The
y axis points up; lengths are metres, angles radians.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from marey.errors import UserError, import_extra, unknown_name

RECORDINGS: dict[str, str] = {
    "backflip": "backflip",
    "cartwheel": "cartwheel",
    "crawl": "crawl",
    "dance a": "dance_a",
    "dance b": "dance_b",
    "get up from the front": "getup_facedown",
    "get up from the back": "getup_faceup",
    "jump": "jump",
    "kick": "kick",
    "punch": "punch",
    "roll": "roll",
    "run": "run",
    "spin": "spin",
    "spin kick": "spinkick",
    "walk": "walk",
}
"""Action -> recording (`humanoid3d_<recording>.txt`)."""

REVERSALS: dict[str, str] = {
    "backflip": "front flip",
    "crawl": "crawl backwards",
    "get up from the front": "lie down on the front",
    "get up from the back": "lie down on the back",
    "jump": "jump backwards",
    "roll": "roll backwards",
    "run": "run backwards",
    "walk": "walk backwards",
}
"""Action -> what it is called when played backwards, where that is another action with a name of
its own."""

QUATERNIONS = (4, 8, 12, 16, 21, 25, 30, 35, 39)
"""First column of each quaternion in a row (the root's is the first)."""

PARTITIONS: dict[str, dict[str, tuple[tuple[float, float], ...]]] = {
    "azimuth_degrees": {
        "train": tuple((a, a + 40.0) for a in range(0, 360, 60)),
        "val": tuple((a + 40.0, a + 50.0) for a in range(0, 360, 60)),
        "test": tuple((a + 50.0, a + 60.0) for a in range(0, 360, 60)),
    },
    "elevation_degrees": {
        "train": ((-5.0, 20.0),),
        "val": ((20.0, 24.0),),
        "test": ((24.0, 30.0),),
    },
    "height": {
        "train": ((0.85, 0.96), (1.04, 1.15)),
        "val": ((0.96, 1.0),),
        "test": ((1.0, 1.04),),
    },
    "girth": {"train": ((0.8, 1.2),), "val": ((1.2, 1.3),), "test": ((1.3, 1.4),)},
    "limbs": {"train": ((0.9, 0.97), (1.03, 1.1)), "val": ((0.97, 1.0),), "test": ((1.0, 1.03),)},
    "speed": {"train": ((0.75, 0.95), (1.05, 1.3)), "val": ((0.95, 1.0),), "test": ((1.0, 1.05),)},
    "phase": {
        "train": tuple((k / 10, k / 10 + 0.06) for k in range(10)),
        "val": tuple((k / 10 + 0.06, k / 10 + 0.08) for k in range(10)),
        "test": tuple((k / 10 + 0.08, k / 10 + 0.1) for k in range(10)),
    },
    "joint_noise_radians": {"train": ((0.0, 0.08),), "val": ((0.08, 0.1),), "test": ((0.1, 0.12),)},
}
"""Parameter -> split -> the intervals its values are drawn from; no value of one split can occur in
another."""

SPLITS = ("train", "val", "test")

ONE_WAY_RECORDINGS = (
    "backflip",
    "cartwheel",
    "get up from the back",
    "get up from the front",
    "jump",
    "kick",
    "roll",
    "spin kick",
)
"""Recordings with a beginning and an end, which a walking cycle has not: the papers' small tables
show them as recorded and backwards."""


def draw(name: str, split: str, generator: torch.Generator) -> float:
    """Draw one parameter uniformly from the intervals of its split (`PARTITIONS`)."""
    intervals = PARTITIONS[name][split]
    point = float(torch.rand((), generator=generator, dtype=torch.float64)) * sum(
        high - low for low, high in intervals
    )
    for low, high in intervals:
        if point < high - low:
            return low + point
        point -= high - low
    return intervals[-1][1]


def list_actions(reversals: str = "named") -> list[str]:
    """Return the action names a renderer takes, sorted.

    Args:
        reversals: "none": the 15 recordings; "named": also the 8 whose reversal is another action
            ("walk backwards"); "all": every recording also played backwards as its own class, 30 in
            all ("kick reversed").
    """
    if reversals not in ("none", "named", "all"):
        raise unknown_name("kind of reversals", reversals, ("none", "named", "all"))
    names = list(RECORDINGS)
    if reversals != "none":
        names += REVERSALS.values()
    if reversals == "all":
        names += [f"{name} reversed" for name in RECORDINGS if name not in REVERSALS]
    return sorted(names)


def reversed_name(action: str) -> str:
    """Return the name of an action played backwards ("walk" <-> "walk backwards", "kick" <-> "kick
    reversed")."""
    for forward, backward in REVERSALS.items():
        if action in (forward, backward):
            return backward if action == forward else forward
    return (
        action.removesuffix(" reversed") if action.endswith(" reversed") else f"{action} reversed"
    )


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One recording, playable at any time, forwards or backwards."""

    action: str
    """Name as `list_actions` gives it."""
    rows: np.ndarray
    """float64, (F, 43): root position (3), root quaternion (4), joints; the duration column is
    dropped."""
    row_seconds: float
    """Seconds from one row to the next."""
    wraps: bool
    """Whether the motion goes on with its first row after its last; else the ends are held."""
    backwards: bool
    """Whether time runs from the end to the start."""

    @property
    def seconds(self) -> float:
        """Length of one cycle."""
        return self.row_seconds * (len(self.rows) - 1)

    def poses(self, seconds: np.ndarray) -> np.ndarray:
        """Return the rows (T, 43) at the given times, interpolated, cycles joined by their travel
        and turn."""
        times = self.seconds - seconds if self.backwards else seconds
        cycles = np.floor(times / self.seconds) if self.wraps else np.zeros_like(times)
        positions = np.clip(
            (times - cycles * self.seconds) / self.row_seconds, 0.0, len(self.rows) - 1.0
        )
        before = np.minimum(positions.astype(int), len(self.rows) - 2)
        fraction = (positions - before)[:, None]

        # q and -q are one rotation: choose the sign that is nearer, interpolate linearly,
        # normalise.
        first, second = self.rows[before], self.rows[before + 1].copy()
        for start in QUATERNIONS:
            columns = slice(start - 1, start + 3)
            flip = (first[:, columns] * second[:, columns]).sum(1) < 0
            second[flip, columns] *= -1
        rows = first + fraction * (second - first)
        for start in QUATERNIONS:
            columns = slice(start - 1, start + 3)
            rows[:, columns] /= np.linalg.norm(rows[:, columns], axis=1, keepdims=True)

        return np.stack(
            [self._after_cycles(row, int(cycle)) for row, cycle in zip(rows, cycles, strict=True)]
        )

    def _after_cycles(self, row: np.ndarray, cycles: int) -> np.ndarray:
        if cycles == 0:
            return row
        # One cycle moves the root along the floor and turns it: add that once per cycle; the height
        # stays.
        first, last = self.rows[0], self.rows[-1]
        turn = _heading(last[3:7]) - _heading(first[3:7])
        row = row.copy()
        for _ in range(abs(cycles)):
            if cycles > 0:
                row[:3] = last[:3] * (1, 0, 1) + rotate_y(row[:3] - first[:3] * (1, 0, 1), turn)
            else:
                row[:3] = first[:3] * (1, 0, 1) + rotate_y(row[:3] - last[:3] * (1, 0, 1), -turn)
        angle = turn * cycles / 2
        row[3:7] = quaternion_product(np.array([np.cos(angle), 0.0, np.sin(angle), 0.0]), row[3:7])
        return row

    def activity(self, window_seconds: float, starts: np.ndarray) -> np.ndarray:
        """Return how much the joints move in the window from each start: radians in all, summed
        over joints."""
        grid = np.linspace(0.0, window_seconds, 12)
        out = []
        for start in starts:
            rows = self.poses(start + grid)
            out.append(np.abs(np.diff(rows[:, 3:], axis=0)).sum())
        return np.array(out)


def _heading(quaternion: np.ndarray) -> float:
    w, x, y, z = quaternion
    return float(np.arctan2(-2 * (x * z - w * y), 1 - 2 * (y * y + z * z)))


def rotate_y(point: np.ndarray, angle: float) -> np.ndarray:
    """Return a point (3,) turned about the y axis by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([c * point[0] + s * point[2], point[1], -s * point[0] + c * point[2]])


def quaternion_product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the rotation `second` followed by `first`; both (4,), order (w, x, y, z)."""
    a, b, c, d = first
    e, f, g, h = second
    return np.array(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ]
    )


@functools.lru_cache(maxsize=64)
def load_motion(action: str) -> Motion:
    """Read the recording behind an action name.

    Raises:
        UserError: if the name is unknown, or `pybullet` (which carries the recordings) is not
            installed.
    """
    backwards = action not in RECORDINGS
    forward = reversed_name(action) if backwards else action
    if forward not in RECORDINGS:
        raise unknown_name("action", action, list_actions("all"))
    folder = Path(
        import_extra("pybullet_data", "mocap", "rendering captured motions").getDataPath()
    )
    path = folder / "data" / "motions" / f"humanoid3d_{RECORDINGS[forward]}.txt"
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: the recording is missing; reinstall pybullet") from error
    rows = np.array(content["Frames"], dtype=np.float64)
    return Motion(
        action=action,
        rows=rows[:, 1:],
        row_seconds=float(rows[0, 0]),
        wraps=content["Loop"] == "wrap",
        backwards=backwards,
    )


@functools.lru_cache(maxsize=512)
def _active_starts(action: str, window_seconds: float) -> np.ndarray:
    """Return which of 40 start phases (cells of one cycle) see at least 0.7 of the most active
    window's movement."""
    motion = load_motion(action)
    starts = (np.arange(40) + 0.5) / 40 * motion.seconds
    activity = motion.activity(window_seconds, starts)
    return activity >= 0.7 * activity.max()


def draw_start(action: str, window_seconds: float, split: str, generator: torch.Generator) -> float:
    """Draw the second of the recording a clip starts at, by the split's phases, in the active part
    of the motion.

    A window that sees less than 0.7 of the movement of the most active one (a person lying still
    before getting up looks the same both ways) is drawn again, at most 60 times.
    """
    active = _active_starts(action, round(window_seconds, 1))
    phase = draw("phase", split, generator)
    for _ in range(60):
        if active[min(int(phase * 40), 39)]:
            break
        phase = draw("phase", split, generator)
    return phase * load_motion(action).seconds
