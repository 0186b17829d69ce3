"""ASF and AMC files (Acclaim): a skeleton of bones with axes and degrees of freedom, and rows of
angles for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marey.errors import UserError
from marey.synthetic.poses.body import turn
from marey.synthetic.poses.bvh import Skeleton

Array = NDArray[np.float64]

AMC_FPS = 120.0
"""Moments per second of the CMU database; the format does not say."""


@dataclass(kw_only=True)
class Bone:
    """A bone as the ASF file describes it."""

    name: str
    direction: Array = field(default_factory=lambda: np.zeros(3))
    length: float = 0.0
    axis: Array = field(default_factory=lambda: np.eye(3))
    """Rotation of the bone's own frame."""
    freedom: list[str] = field(default_factory=list)
    """"rx", "ry", "rz" in the order of the rows."""
    parent: str | None = None


def read_amc(
    path: str | Path, skeleton: str | Path | None = None, fps: float = AMC_FPS
) -> Skeleton:
    """Read an AMC file and place the ends of its bones.

    Args:
        path: the AMC file.
        skeleton: the ASF file; None: the only one in the same folder.
        fps: moments per second.

    Returns:
        Joints named after their bones; a bone's position is where it ends, but for `STARTS`, whose
        joint is where the bone starts.

    Raises:
        UserError: if a file is missing or cannot be read.
    """
    path = Path(path)
    if skeleton is None:
        beside = sorted(path.parent.glob("*.asf"))
        if len(beside) != 1:
            raise UserError(
                f"{path}: expected one .asf skeleton beside it, found {len(beside)}; put one there"
            )
        skeleton = beside[0]
    try:
        bones, degrees = read_asf(Path(skeleton))
        rows = _rows(path, bones)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise UserError(
            f"{path}: not an AMC file with a fitting skeleton ({error}); copy both again"
        ) from error
    return Skeleton(names=tuple(bones), positions=_place(bones, rows, degrees), fps=fps)


def read_asf(path: Path) -> tuple[dict[str, Bone], bool]:
    """Read the bones of an ASF file, parents first, and whether angles are degrees."""
    bones: dict[str, Bone] = {
        "root": Bone(name="root", freedom=["tx", "ty", "tz", "rx", "ry", "rz"])
    }
    section, degrees, bone = "", True, bones["root"]
    parents: dict[str, str] = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            section = words[0]
        elif section == ":units" and words[0] == "angle":
            degrees = words[1] == "deg"
        elif section == ":root" and words[0] == "order":
            bones["root"].freedom = [word.lower() for word in words[1:]]
        elif section == ":bonedata":
            bone = _bone_line(bones, bone, words, degrees)
        elif section == ":hierarchy" and words[0] not in ("begin", "end"):
            parents |= {child: words[0] for child in words[1:]}
    if len(bones) < 2:
        raise ValueError(f"{path} has no bones")

    ordered = {"root": bones["root"]}
    waiting = [name for name in parents if name in bones]
    while waiting:
        ready = [name for name in waiting if parents[name] in ordered]
        if not ready:
            raise ValueError(f"{path}: bones without a way to the root: {', '.join(waiting)}")
        for name in ready:
            ordered[name] = bones[name]
            ordered[name].parent = parents[name]
        waiting = [name for name in waiting if name not in ordered]
    return ordered, degrees


def _bone_line(bones: dict[str, Bone], bone: Bone, words: list[str], degrees: bool) -> Bone:
    """Take in one line of a bone; returns the bone that the next lines describe."""
    if words[0] == "name":
        bones[words[1]] = Bone(name=words[1])
        return bones[words[1]]
    if words[0] == "direction":
        bone.direction = np.array(words[1:4], np.float64)
    elif words[0] == "length":
        bone.length = float(words[1])
    elif words[0] == "axis":
        bone.axis = _euler(np.array(words[1:4], np.float64), words[4].lower(), degrees)
    elif words[0] == "dof":
        bone.freedom = [word.lower() for word in words[1:]]
    return bone


def _euler(angles: Array, order: str, degrees: bool) -> Array:
    """Return the rotation (..., 3, 3) of angles (..., 3) about fixed axes in this order (Acclaim's
    XYZ: Rz Ry Rx)."""
    angles = np.deg2rad(angles) if degrees else angles
    rotation: Array = np.broadcast_to(np.eye(3), (*angles.shape[:-1], 3, 3))
    for place, axis in enumerate(order):
        rotation = turn(axis, angles[..., place]) @ rotation
    return rotation


def _rows(path: Path, bones: dict[str, Bone]) -> dict[str, Array]:
    """Return the values (F, degrees of freedom) of every bone that has some."""
    found: dict[str, list[list[float]]] = {name: [] for name, bone in bones.items() if bone.freedom}
    for line in path.read_text(encoding="latin-1").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in found:
            found[words[0]].append([float(word) for word in words[1:]])
    rows = {name: np.array(values) for name, values in found.items()}
    lengths = {len(values) for values in rows.values()}
    if len(lengths) != 1 or not lengths.pop():
        raise ValueError("rows are missing")
    return rows


STARTS = ("femur", "tibia", "foot", "humerus", "radius", "wrist")
"""Bones that stand for the joint where they start: hip, knee, ankle, shoulder, elbow, and the
wrist's own."""


def _place(bones: dict[str, Bone], rows: dict[str, Array], degrees: bool) -> Array:
    F = len(rows["root"])
    ends: dict[str, Array] = {}
    turned: dict[str, Array] = {}
    answer = []
    for name, bone in bones.items():
        values = {freedom: rows[name][:, place] for place, freedom in enumerate(bone.freedom)}
        zero = np.zeros(F)
        angles = np.stack([values.get(f"r{axis}", zero) for axis in "xyz"], axis=-1)
        local = bone.axis @ _euler(angles, "xyz", degrees) @ np.linalg.inv(bone.axis)
        if bone.parent is None:
            start = np.stack([values.get(f"t{axis}", zero) for axis in "xyz"], axis=-1)
            ends[name], turned[name] = start, local
            answer.append(start)
            continue
        start = ends[bone.parent]
        turned[name] = turned[bone.parent] @ local
        ends[name] = start + bone.length * np.einsum("fij,j->fi", turned[name], bone.direction)
        answer.append(start if name[1:] in STARTS else ends[name])
    return np.stack(answer, axis=1)
