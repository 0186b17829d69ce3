"""Rendering a clip of one person: motion, body, camera, background, and the damage of a cheap
camera."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from marey.errors import UserError, unknown_name
from marey.synthetic.backgrounds import draw_background
from marey.synthetic.body import draw_body
from marey.synthetic.motion import SPLITS, draw, draw_start, load_motion
from marey.synthetic.renderer import Camera, Stage, draw_light, shake_joints
from marey.video.clip import Clip


@dataclass(frozen=True, kw_only=True)
class RenderedClip:
    """One rendered clip with its exact labels."""

    clip: Clip
    """uint8 frames (T, 3, size, size)."""
    boxes_xyxy: Tensor
    """float, (T, 4), pixels, the tight box of the person's visible pixels [x1, x2) x [y1, y2);
    zeros when unseen."""
    masks: Tensor
    """bool, (T, size, size), the person's pixels."""
    action: str
    """Name as `list_actions` gives it."""
    seed: int
    """The seed all parameters came from."""


def render_clip(
    action: str,
    *,
    seed: int,
    split: str = "train",
    size: int = 64,
    num_frames: int = 8,
    fps: float = 4.0,
    backgrounds: Path | None = None,
) -> RenderedClip:
    """Render one person doing one action.

    Args:
        action: one of `list_actions("all")`.
        seed: where every random parameter comes from.
        split: "train", "val" or "test": which intervals the parameters are drawn from
            (`PARTITIONS`).
        size: pixels of each side.
        num_frames: T.
        fps: frames per second of the clip; the default shows 1.75 s.
        backgrounds: optional folder of images, used in half the clips.

    Raises:
        UserError: if the action or split is unknown, a size is not positive, or pybullet is
            missing.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if size < 8 or num_frames < 1 or fps <= 0:
        raise UserError(
            f"cannot render {num_frames} frames of {size} pixels at {fps} frames per second; "
            "expected at least 1 frame, 8 pixels and a positive rate"
        )

    # The order of the draws is part of the format: a change of it changes every clip.
    motion = load_motion(action)
    generator = torch.Generator().manual_seed(seed)
    body = draw_body(split, generator)
    seconds = np.arange(num_frames) / fps
    played = seconds * draw("speed", split, generator)
    start = draw_start(action, float(played[-1]), split, generator)
    rows = shake_joints(
        motion.poses(start + played),
        seconds,
        draw("joint_noise_radians", split, generator),
        generator,
    )
    cameras = draw_cameras(rows[:, :3] * body.height, split, generator)
    light, scene_size = draw_light(generator), size * (2 if size <= 96 else 1)
    wall = draw_background(2 * size, split, generator, backgrounds)
    offsets = background_offsets(
        cameras, depth=4.0 + 8.0 * float(torch.rand((), generator=generator))
    )

    frames, masks = [], []
    with Stage([body]) as stage:
        for row, camera, offset in zip(rows, cameras, offsets, strict=True):
            stage.pose(0, row)
            picture, persons = stage.photograph(camera, light, scene_size, scene_size)
            frames.append(composite(picture, persons >= 0, wall, offset, size))
            mask = torch.from_numpy(persons >= 0).float()[None, None]
            masks.append(F.interpolate(mask, size=(size, size), mode="area")[0, 0] >= 0.5)

    stacked = torch.stack(masks)
    clip = Clip(
        frames=degrade(torch.stack(frames), generator),
        frame_indices=tuple(range(num_frames)),
        frame_seconds=tuple(float(s) for s in seconds),
        fps=fps,
        path=f"mocap:{action}?seed={seed}&split={split}",
    )
    return RenderedClip(
        clip=clip,
        boxes_xyxy=torch.stack([mask_box(mask) for mask in stacked]),
        masks=stacked,
        action=action,
        seed=seed,
    )


def draw_cameras(roots: np.ndarray, split: str, generator: torch.Generator) -> list[Camera]:
    """Draw a camera path that keeps a person in view: it follows them loosely, pans, tilts, zooms
    and shakes a little.

    Args:
        roots: (T, 3) the person's root, metres.
    """
    azimuth = np.radians(draw("azimuth_degrees", split, generator))
    elevation = np.radians(draw("elevation_degrees", split, generator))
    u = torch.rand(8, generator=generator).tolist()
    follow, field = 0.6 + 0.4 * u[0], 35.0 + 25.0 * u[1]
    middle = (roots.min(0) + roots.max(0)) / 2
    targets = middle + follow * (roots - middle)
    spread = float(np.abs(roots - targets)[:, [0, 2]].max())
    distance = (0.85 + 0.45 * u[2] + 0.8 * spread) / np.tan(np.radians(field / 2))
    direction = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.sin(azimuth) * np.cos(elevation),
        ]
    )
    steps = np.linspace(-0.5, 0.5, len(roots))[:, None]
    drift = steps * np.array([[u[3] - 0.5, 0.4 * (u[4] - 0.5), u[5] - 0.5]]) * 0.5
    shake = 0.02 * u[6] * torch.randn(len(roots), 3, generator=generator).numpy()
    zoom = 1 + 0.2 * (u[7] - 0.5) * steps[:, 0]
    offset = np.array([0.0, 0.12 - middle[1] * 0.1, 0.0])
    cameras = []
    for t, target in enumerate(targets + drift + shake + offset):
        eye = target + distance * zoom[t] * direction
        cameras.append(Camera(eye=tuple(eye), target=tuple(target), field_of_view_degrees=field))
    return cameras


def background_offsets(cameras: list[Camera], depth: float) -> list[tuple[float, float]]:
    """Return how far a wall `depth` metres behind the first target has moved in each frame, in
    frame widths."""
    eye, target = np.array(cameras[0].eye), np.array(cameras[0].target)
    anchor = target + depth * (target - eye) / np.linalg.norm(target - eye)
    points = np.concatenate([camera.project(anchor[None]) for camera in cameras])
    return [(float(x), float(y)) for x, y in points - points[0]]


def composite(
    picture: np.ndarray,
    person: np.ndarray,
    wall: Tensor,
    offset: tuple[float, float],
    size: int,
    height: int | None = None,
) -> Tensor:
    """Put the rendered persons before the background, smooth their edges, and return uint8
    (3, height, size).

    Args:
        picture: uint8 (h, w, 3), rendered at the frame's size or a multiple of it.
        person: bool (h, w).
        wall: float (3, S, S) in [0, 1], larger than the frame; it is mirrored beyond its borders.
        offset: the wall's shift in frame widths and heights, right and down.
    """
    height = height or size

    # Coordinates of the frame's pixels on the wall, in [-1, 1] of the wall.
    S = wall.shape[-1]
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    x = (torch.arange(size) + 0.5) / size * 2 - 1
    scale = size / S
    grid_y, grid_x = torch.meshgrid(
        (y - 2 * offset[1]) * scale * height / size, (x - 2 * offset[0]) * scale, indexing="ij"
    )
    behind = F.grid_sample(
        wall[None],
        torch.stack([grid_x, grid_y], -1)[None].float(),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )

    # Averaging a larger picture, premultiplied by its mask, smooths the outline.
    alpha = torch.from_numpy(person).float()[None, None]
    colour = torch.from_numpy(picture).permute(2, 0, 1).float()[None] / 255 * alpha
    if alpha.shape[-2:] != (height, size):
        alpha, colour = (
            F.interpolate(v, size=(height, size), mode="area") for v in (alpha, colour)
        )
    return ((colour + (1 - alpha) * behind)[0] * 255).round().clamp(0, 255).to(torch.uint8)


def degrade(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Change uint8 frames (T, 3, H, W) as a cheap camera does: exposure, blur, sensor noise, JPEG
    compression."""
    u = torch.rand(6, generator=generator).tolist()
    values = frames.float() / 255
    values = (values ** (0.75 + 0.55 * u[0])) * (0.75 + 0.4 * u[1])
    if u[2] < 0.4:
        low = F.avg_pool2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        values = values + u[2] / 0.4 * (low - values)
    values = values + 0.04 * u[3] * torch.randn(values.shape, generator=generator)
    out = (values * 255).round().clamp(0, 255).to(torch.uint8)
    if u[4] < 0.7:
        quality = int(30 + 65 * u[5])
        out = torch.stack([decode_jpeg(encode_jpeg(frame, quality=quality)) for frame in out])
    return out


def mask_box(mask: Tensor) -> Tensor:
    """Return the tight box (4,) of a bool mask (H, W) in pixels, x1 y1 x2 y2, zeros when the mask
    is empty."""
    if not bool(mask.any()):
        return torch.zeros(4)
    rows, columns = torch.where(mask.any(1))[0], torch.where(mask.any(0))[0]
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
