"""Cameras, lights and posed bodies, drawn by pybullet's CPU renderer.

`pybullet` is imported only when something is rendered.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marey.errors import import_extra
from marey.synthetic.body import LINKS, Body, urdf
from marey.synthetic.motion import quaternion_product

JOINT_COLUMNS = (
    (7, 11),
    (11, 15),
    (15, 19),
    (19, 20),
    (20, 24),
    (24, 28),
    (28, 29),
    (29, 33),
    (33, 34),
    (34, 38),
    (38, 42),
    (42, 43),
)
"""Columns of a motion row for each joint of `JOINT_LINKS`."""
JOINT_LINKS = (1, 2, 9, 10, 11, 3, 4, 12, 13, 14, 6, 7)
"""Link index of chest, neck, right hip/knee/ankle/shoulder/elbow, left the same, in the URDF of
`marey.synthetic.body`."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C++ library's notices off standard output and standard error."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved, null = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for handle in (*saved, null):
            os.close(handle)


@functools.cache
def _engine() -> tuple[Any, int]:
    with _quiet():
        bullet = import_extra("pybullet", "mocap", "rendering captured motions")
        client = bullet.connect(bullet.DIRECT)
    atexit.register(bullet.disconnect, client)
    return bullet, client


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the camera stands at one moment; metres, degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view_degrees: float

    def view(self) -> list[float]:
        """Return the OpenGL view matrix, 16 values, column by column."""
        return list(_engine()[0].computeViewMatrix(self.eye, self.target, (0.0, 1.0, 0.0)))

    def projection(self, aspect: float) -> list[float]:
        """Return the OpenGL projection matrix for width / height = aspect."""
        return list(
            _engine()[0].computeProjectionMatrixFOV(self.field_of_view_degrees, aspect, 0.05, 60.0)
        )

    def project(self, points: np.ndarray, aspect: float = 1.0) -> np.ndarray:
        """Return where points (N, 3) fall: (N, 2) in [0, 1] of width and height, from the top
        left."""
        view = np.array(self.view()).reshape(4, 4, order="F")
        projection = np.array(self.projection(aspect)).reshape(4, 4, order="F")
        clip = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ (projection @ view).T
        xy = clip[:, :2] / np.maximum(clip[:, 3:], 1e-6)
        return np.stack([(xy[:, 0] + 1) / 2, (1 - xy[:, 1]) / 2], axis=1)


@dataclass(frozen=True, kw_only=True)
class Light:
    """One distant light."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    ambient: float
    diffuse: float
    shadow: bool


def draw_light(generator: torch.Generator) -> Light:
    """Draw a light from above, from any side."""
    u = torch.rand(8, generator=generator).tolist()
    return Light(
        direction=(2 * u[0] - 1, 0.4 + u[1], 2 * u[2] - 1),
        ambient=0.3 + 0.35 * u[6],
        diffuse=0.3 + 0.4 * u[7],
        shadow=u[1] < 0.3,
        colour=(0.75 + 0.25 * u[3], 0.75 + 0.25 * u[4], 0.75 + 0.25 * u[5]),
    )


class Stage:
    """Some persons in pybullet's world, posed and photographed; use as a context manager."""

    def __init__(self, bodies: list[Body]):
        self.bullet, self.client = _engine()
        self.bodies = bodies
        self.handles = [self._load(body) for body in bodies]

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            self.bullet.removeBody(handle, physicsClientId=self.client)

    def _load(self, body: Body) -> int:
        with tempfile.TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / "person.urdf"
            path.write_text(urdf(body))
            handle = self.bullet.loadURDF(
                str(path),
                globalScaling=body.height,
                physicsClientId=self.client,
                flags=self.bullet.URDF_MAINTAIN_LINK_ORDER,
            )
        for link, colour in enumerate(body.colours):
            self.bullet.changeVisualShape(
                handle, link, rgbaColor=(*colour, 1.0), physicsClientId=self.client
            )
        return handle

    def pose(self, person: int, row: np.ndarray) -> None:
        """Put a person into one row of a motion (43 values); the root's height follows the
        body's."""
        body, handle = self.bodies[person], self.handles[person]
        root = (row[0], row[1] * body.height * (0.4 + 0.6 * body.limbs), row[2])
        self.bullet.resetBasePositionAndOrientation(
            handle, root, _xyzw(row[3:7]), physicsClientId=self.client
        )
        values = [_xyzw(row[a:b]) if b - a == 4 else [float(row[a])] for a, b in JOINT_COLUMNS]
        self.bullet.resetJointStatesMultiDof(
            handle, list(JOINT_LINKS), values, physicsClientId=self.client
        )

    def head_and_hands(self, person: int) -> np.ndarray:
        """Return where a posed person's head, right and left hand are: (3, 3), metres."""
        handle, points = self.handles[person], []
        for link, up in (("neck", 0.62 * 0.25), ("right_wrist", 0.0), ("left_wrist", 0.0)):
            state = self.bullet.getLinkState(
                handle,
                LINKS.index(link),
                computeForwardKinematics=True,
                physicsClientId=self.client,
            )
            offset = (0.0, up * self.bodies[person].height, 0.0)
            place, _ = self.bullet.multiplyTransforms(state[4], state[5], offset, (0, 0, 0, 1))
            points.append(place)
        return np.array(points)

    def photograph(
        self, camera: Camera, light: Light, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the picture and the person that each pixel shows.

        Returns:
            uint8 (height, width, 3), and int (height, width): the person's number, or -1.
        """
        _, _, colour, _, segments = self.bullet.getCameraImage(
            width,
            height,
            camera.view(),
            camera.projection(width / height),
            lightDirection=light.direction,
            lightColor=light.colour,
            lightDistance=8.0,
            shadow=int(light.shadow),
            lightAmbientCoeff=light.ambient,
            lightDiffuseCoeff=light.diffuse,
            lightSpecularCoeff=0.1,
            renderer=self.bullet.ER_TINY_RENDERER,
            physicsClientId=self.client,
        )
        segments = np.asarray(segments).reshape(height, width)
        persons = np.full(segments.shape, -1)
        for person, handle in enumerate(self.handles):
            persons[segments == handle] = person
        return np.asarray(colour, dtype=np.uint8).reshape(height, width, 4)[..., :3], persons


def _xyzw(quaternion: np.ndarray) -> list[float]:
    w, x, y, z = (float(v) for v in quaternion)
    return [x, y, z, w]


def shake_joints(
    rows: np.ndarray, seconds: np.ndarray, radians: float, generator: torch.Generator
) -> np.ndarray:
    """Add a slow random swing of at most `radians` to every joint of rows (T, 43), not to the
    root."""
    rows = rows.copy()
    for start, stop in JOINT_COLUMNS:
        u = torch.rand(6, generator=generator).numpy().astype(np.float64)
        swing = radians * u[0] * np.sin(2 * np.pi * ((0.3 + u[1]) * seconds + u[2]))
        if stop - start == 1:
            rows[:, start] += swing
            continue

        axis = u[3:6] * 2 - 1
        axis /= max(float(np.linalg.norm(axis)), 1e-6)
        for t, angle in enumerate(swing):
            turn = np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis])
            rows[t, start:stop] = quaternion_product(rows[t, start:stop], turn)
    return rows
