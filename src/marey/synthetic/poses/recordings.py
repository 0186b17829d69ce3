"""Captured motions as the 17 keypoints of COCO in metres: CMU, DeepMimic, and a user's own files.

    <action>/NAME.bvh, <action>/NAME.amc (with one .asf beside it)     what `read_own` takes

Axes: F moments at `FPS`. y points up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marey.errors import UserError
from marey.synthetic.motion import RECORDINGS, load_motion, quaternion_product
from marey.synthetic.poses.asf_amc import read_amc
from marey.synthetic.poses.body import face_of
from marey.synthetic.poses.bvh import Skeleton, read_bvh

Array = NDArray[np.float64]

FPS = 60.0
"""Moments per second of every recording here."""

DROPPED_SECONDS = 0.1
"""Of the start of a CMU recording: some begin with a frame in T pose."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One captured motion."""

    name: str
    """Source, action and recording, such as "cmu/walking/walking_1_train"."""
    action: str
    """What its source calls it."""
    joints: Array
    """(F, 17, 3), metres."""

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.joints) / FPS


CMU_FILES = ("joints_mm_60fps.npz", "layout.json")

CMU_BODY = [
    f"{side}_{joint}"
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]


def read_cmu(folder: str | Path) -> list[Recording]:
    """Read CMU recordings stored as joint positions: `joints_mm_60fps.npz` and `layout.json`.

    Raises:
        UserError: if a file is missing.
    """
    paths = [Path(folder) / name for name in CMU_FILES]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path}: no such file; expected a folder with {' and '.join(CMU_FILES)}"
            )
    index = {
        name: place for place, name in enumerate(json.loads(paths[1].read_text())["joint_names"])
    }

    found = []
    with np.load(paths[0]) as stored:
        for key in sorted(stored.files):
            positions = stored[key][round(DROPPED_SECONDS * FPS) :].astype(np.float64) / 1000
            left, right = (
                positions[:, index["left_shoulder"]],
                positions[:, index["right_shoulder"]],
            )
            top = positions[:, index["head_end"]]
            head = (positions[:, index["head"]] + top) / 2
            faces = face_of(positions[:, index["lower_neck"]], head, top, left, right)
            body = positions[:, [index[name] for name in CMU_BODY]]
            joints = np.concatenate([faces, body], axis=1)
            found.append(Recording(name=f"cmu/{key}", action=key.split("/")[0], joints=joints))
    return found


def read_deepmimic() -> list[Recording]:
    """Read the 15 recordings that ship inside `pybullet`; those that wrap go round to at least 6
    seconds.

    Raises:
        UserError: if `pybullet` is not installed.
    """
    found = []
    for action in sorted(RECORDINGS):
        motion = load_motion(action)
        seconds = max(motion.seconds, 6.0) if motion.wraps else motion.seconds
        rows = motion.poses(np.arange(0, seconds, 1 / FPS))
        found.append(
            Recording(name=f"deepmimic/{action}", action=action, joints=deepmimic_joints(rows))
        )
    return found


def deepmimic_joints(rows: Array) -> Array:
    """Place the joints (F, 17, 3) of DeepMimic's humanoid from its rows (F, 43), see
    `motion.Motion`.

    Offsets of the joints are those of `humanoid.urdf`. The recordings move along x with z to the
    right; the answer has the same axes.
    """

    def rotation(column: int) -> Array:
        return rows[:, column : column + 4]

    root_place, root = rows[:, :3], rows[:, 3:7]
    chest = compose(root, rotation(7))
    chest_place = root_place + rotate(root, (0, 0.236151, 0))
    neck = compose(chest, rotation(11))
    neck_place = chest_place + rotate(chest, (0, 0.223894, 0))
    head, top = (neck_place + rotate(neck, (0, up, 0)) for up in (0.175, 0.28))

    limbs: dict[str, tuple[Array, Array, Array]] = {}
    for side, hip, shoulder, sign in (("right", 15, 24, 1.0), ("left", 29, 38, -1.0)):
        thigh = compose(root, rotation(hip))
        start = root_place + rotate(root, (0, 0, 0.084887 * sign))
        middle = start + rotate(thigh, (0, -0.421546, 0))
        shank = compose(thigh, about_z(rows[:, hip + 4]))
        limbs[f"{side} leg"] = (start, middle, middle + rotate(shank, (0, -0.40987, 0)))

        upper = compose(chest, rotation(shoulder))
        start = chest_place + rotate(chest, (-0.02405, 0.24350, 0.18311 * sign))
        middle = start + rotate(upper, (0, -0.274788, 0))
        fore = compose(upper, about_z(rows[:, shoulder + 4]))
        limbs[f"{side} arm"] = (start, middle, middle + rotate(fore, (0, -0.258947, 0)))

    faces = face_of(neck_place, head, top, limbs["left arm"][0], limbs["right arm"][0])
    body = [
        limbs[f"{side} {kind}"][part]
        for kind in ("arm", "leg")
        for part in range(3)
        for side in ("left", "right")
    ]
    return np.concatenate([faces, np.stack(body, axis=1)], axis=1)


def compose(first: Array, second: Array) -> Array:
    """Return the rotations `second` followed by `first`, quaternions (F, 4) of order (w, x, y,
    z)."""
    return np.moveaxis(quaternion_product(first.T, second.T), 0, -1)


def rotate(quaternion: Array, vector: tuple[float, float, float]) -> Array:
    """Rotate one vector by quaternions (F, 4): (F, 3)."""
    w, axis = quaternion[:, :1], quaternion[:, 1:]
    return np.asarray(vector) + 2 * np.cross(axis, np.cross(axis, vector) + w * np.asarray(vector))


def about_z(angle: Array) -> Array:
    """Return quaternions (F, 4) of rotations about z."""
    zero = np.zeros_like(angle)
    return np.stack([np.cos(angle / 2), zero, zero, np.sin(angle / 2)], axis=-1)


JOINT_NAMES: dict[int, tuple[str, ...]] = {
    5: ("LeftArm", "LeftShoulder", "lhumerus", "LeftUpArm", "l_shoulder"),
    6: ("RightArm", "RightShoulder", "rhumerus", "RightUpArm", "r_shoulder"),
    7: ("LeftForeArm", "LeftElbow", "lradius", "LeftLowArm", "l_elbow"),
    8: ("RightForeArm", "RightElbow", "rradius", "RightLowArm", "r_elbow"),
    9: ("LeftHand", "LeftWrist", "lwrist", "lhand", "l_wrist"),
    10: ("RightHand", "RightWrist", "rwrist", "rhand", "r_wrist"),
    11: ("LeftUpLeg", "LeftHip", "LHipJoint", "lfemur", "LeftThigh", "l_hip"),
    12: ("RightUpLeg", "RightHip", "RHipJoint", "rfemur", "RightThigh", "r_hip"),
    13: ("LeftLeg", "LeftKnee", "ltibia", "LeftShin", "l_knee"),
    14: ("RightLeg", "RightKnee", "rtibia", "RightShin", "r_knee"),
    15: ("LeftFoot", "LeftAnkle", "lfoot", "l_ankle"),
    16: ("RightFoot", "RightAnkle", "rfoot", "r_ankle"),
}
"""Keypoint -> what skeleton files call the joint, the surest name first; compared without case."""

NECKS, HEADS = ("Neck", "Neck1", "lowerneck", "neck"), ("Head", "head", "Neck1", "upperneck")


def read_own(folder: str | Path) -> list[Recording]:
    """Read a user's recordings, one folder per action, BVH and AMC files.

    Raises:
        UserError: if there is none, a file is damaged, or a joint is not found by any of its usual
            names.
    """
    found = [_own(path) for path in _own_files(Path(folder))]
    if not found:
        raise UserError(
            f"{folder}: no recording; expected <action>/*.bvh, or <action>/*.amc beside an .asf"
        )
    return found


def _own_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() in (".bvh", ".amc"):
            yield path


def _own(path: Path) -> Recording:
    skeleton = read_bvh(path) if path.suffix.lower() == ".bvh" else read_amc(path)
    joints = keypoints_of(skeleton, path)
    times = np.arange(0, len(joints) / skeleton.fps, 1 / FPS)
    places = np.minimum(times * skeleton.fps, len(joints) - 1)
    before = np.minimum(places.astype(int), max(len(joints) - 2, 0))
    fraction = (places - before)[:, None, None]
    after = np.minimum(before + 1, len(joints) - 1)
    joints = (1 - fraction) * joints[before] + fraction * joints[after]
    return Recording(
        name=f"own/{path.parent.name}/{path.name}", action=path.parent.name, joints=joints
    )


def keypoints_of(skeleton: Skeleton, path: Path) -> Array:
    """Pick the keypoints (F, 17, 3) of a skeleton by the names of its joints; legs get a length of
    .84 m.

    Raises:
        UserError: if one is not there.
    """

    def place(names: tuple[str, ...]) -> Array:
        known = {name.lower().split(":")[-1]: index for index, name in enumerate(skeleton.names)}
        for name in names:
            if name.lower() in known:
                return skeleton.positions[:, known[name.lower()]]
        raise UserError(
            f"{path}: no joint called {' or '.join(names)}; rename one of "
            f"{', '.join(skeleton.names)}"
        )

    body = np.stack([place(JOINT_NAMES[index]) for index in range(5, 17)], axis=1)
    neck, head = place(NECKS), place(HEADS)
    up = head - neck
    faces = face_of(neck, head + up / 2, head + up, body[:, 0], body[:, 1])
    thigh = np.linalg.norm(body[:, 6] - body[:, 8], axis=-1).mean()
    shank = np.linalg.norm(body[:, 8] - body[:, 10], axis=-1).mean()
    joints = np.concatenate([faces, body], axis=1) * (0.84 / max(thigh + shank, 1e-6))
    joints[..., 1] -= np.percentile(joints[..., 1].min(1), 5)

    # the face was placed in metres, the skeleton may be in inches or centimetres: place it again
    shoulders = joints[:, 5:7].mean(1)
    up = (head - neck) / np.maximum(np.linalg.norm(head - neck, axis=-1, keepdims=True), 1e-9)
    joints[:, :5] = face_of(
        shoulders, shoulders + 0.23 * up, shoulders + 0.35 * up, joints[:, 5], joints[:, 6]
    )
    return joints
