"""BVH files: a tree of joints with offsets, then rows of channel values, one per moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marey.errors import UserError
from marey.synthetic.poses.body import turn

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """Where the joints of a recording are."""

    names: tuple[str, ...]
    """Of the J joints."""
    positions: Array
    """(F, J, 3), in the file's unit."""
    fps: float
    """Moments per second."""


@dataclass(kw_only=True)
class Joint:
    """A joint as the file describes it."""

    name: str
    parent: int
    offset: Array
    channels: list[str] = field(default_factory=list)


def read_bvh(path: str | Path) -> Skeleton:
    """Read a BVH file and place its joints.

    Raises:
        UserError: if the file is missing or not BVH.
    """
    path = Path(path)
    try:
        head, motion = path.read_text(encoding="latin-1").split("MOTION", 1)
        joints = _hierarchy(head.split())
        words = motion.split()
        frames, seconds = (
            int(words[words.index("Frames:") + 1]),
            float(words[words.index("Time:") + 1]),
        )
        values = np.array(words[words.index("Time:") + 2 :], np.float64).reshape(frames, -1)
        if values.shape[1] != sum(len(joint.channels) for joint in joints) or not seconds > 0:
            raise ValueError(f"{values.shape[1]} values a row")
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{path}: not a BVH file that can be read ({error}); export it again"
        ) from error
    named = [index for index, joint in enumerate(joints) if joint.channels]
    places = _place(joints, values)
    return Skeleton(
        names=tuple(joints[index].name for index in named),
        positions=places[:, named],
        fps=1 / seconds,
    )


def _hierarchy(words: list[str]) -> list[Joint]:
    joints: list[Joint] = []
    open_joints: list[int] = []
    place = 0
    while place < len(words):
        word = words[place]
        if word in ("ROOT", "JOINT", "End"):
            parent = open_joints[-1] if open_joints else -1
            joints.append(Joint(name=words[place + 1], parent=parent, offset=np.zeros(3)))
            place += 2
        elif word == "{":
            open_joints.append(len(joints) - 1)
            place += 1
        elif word == "}":
            open_joints.pop()
            place += 1
        elif word == "OFFSET":
            joints[open_joints[-1]].offset = np.array(words[place + 1 : place + 4], np.float64)
            place += 4
        elif word == "CHANNELS":
            count = int(words[place + 1])
            joints[open_joints[-1]].channels = words[place + 2 : place + 2 + count]
            place += 2 + count
        else:
            place += 1
    if not joints:
        raise ValueError("no HIERARCHY")
    return joints


def _place(joints: list[Joint], values: Array) -> Array:
    """Return positions (F, J, 3): each joint's rotations, in the order of its channels, turn what
    hangs on it."""
    F = len(values)
    positions = np.zeros((F, len(joints), 3))
    rotations = np.zeros((F, len(joints), 3, 3))
    column = 0
    for index, joint in enumerate(joints):
        local, offset = np.broadcast_to(np.eye(3), (F, 3, 3)), np.tile(joint.offset, (F, 1))
        for channel in joint.channels:
            axis, kind = channel[0].lower(), channel[1:].lower()
            if kind == "position":
                offset[:, "xyz".index(axis)] = values[:, column]
            else:
                angle = np.deg2rad(values[:, column])
                local = local @ turn(axis, angle)
            column += 1
        if joint.parent < 0:
            positions[:, index], rotations[:, index] = offset, local
        else:
            above = rotations[:, joint.parent]
            positions[:, index] = positions[:, joint.parent] + np.einsum(
                "fij,fj->fi", above, offset
            )
            rotations[:, index] = above @ local
    return positions
