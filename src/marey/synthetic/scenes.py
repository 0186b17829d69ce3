"""Rendering scenes of several persons with different actions and exact boxes, in the layout of AVA.

Persons stand side by side and behind each other, hide one another, and some walk or run out of the
frame. A person's box is the tight box of the pixels that are seen; a person of whom less than
`MIN_VISIBLE` of the pixels are seen (hidden or out of the frame) has no box in that frame.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import encode_jpeg

from marey.errors import UserError, unknown_name
from marey.files import write_bytes, write_csv, write_text
from marey.synthetic.backgrounds import draw_background
from marey.synthetic.body import Body, draw_body
from marey.synthetic.clip import background_offsets, composite, degrade, mask_box
from marey.synthetic.motion import (
    SPLITS,
    draw,
    draw_start,
    list_actions,
    load_motion,
    quaternion_product,
    rotate_y,
)
from marey.synthetic.renderer import Camera, Light, Stage, draw_light, shake_joints
from marey.video.clip import Clip
from marey.video.encode import write_video

MIN_VISIBLE = 0.25
"""Smallest share of a person's pixels (alone, in an unbounded frame) that must be seen for a
box."""


@dataclass(frozen=True, kw_only=True)
class RenderedScene:
    """A rendered scene with its exact labels."""

    clip: Clip
    """uint8 frames (T, 3, height, width)."""
    actions: tuple[str, ...]
    """Action of each person (P)."""
    boxes_xyxy: Tensor
    """float, (T, P, 4), pixels; zeros where `visible` is False."""
    visible: Tensor
    """bool, (T, P)."""
    persons: Tensor
    """int16, (T, height, width): the number of the person each pixel shows, -1 for none."""
    head_and_hands_xy_norm: Tensor
    """float, (T, P, 3, 2): head, right and left hand as fractions, seen or not."""
    split: str


def render_scene(
    *,
    seed: int,
    split: str = "train",
    width: int = 112,
    height: int = 112,
    num_frames: int = 16,
    fps: float = 8.0,
    num_persons: int | None = None,
    actions: tuple[str, ...] | None = None,
    backgrounds: Path | None = None,
) -> RenderedScene:
    """Render 2-4 persons with different actions.

    Args:
        seed: where every random parameter comes from.
        split: "train", "val" or "test" (`marey.synthetic.motion.PARTITIONS`).
        width, height: pixels.
        num_frames: T.
        fps: frames per second; 16 frames at 8 show 2 s.
        num_persons: P; None draws 2, 3 or 4. 1 to 6.
        actions: the names to draw from, without repetition while they last; None: all of
            `list_actions()`.
        backgrounds: optional folder of images, used in half the scenes.

    Raises:
        UserError: if the split or an action is unknown, or a number is out of range.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if num_persons is not None and not 1 <= num_persons <= 6:
        raise UserError(f"a scene of {num_persons} persons; expected 1 to 6")
    generator = torch.Generator().manual_seed(seed)
    P = num_persons or 2 + int(torch.randint(3, (), generator=generator))
    names = list(actions or list_actions())
    order = torch.randperm(len(names), generator=generator).tolist()
    chosen = tuple(names[order[p % len(order)]] for p in range(P))
    seconds = np.arange(num_frames) / fps
    bodies = [draw_body(split, generator) for _ in chosen]
    rows = _place(chosen, seconds, split, generator)
    return film_group(
        chosen,
        bodies,
        rows,
        seconds,
        split=split,
        width=width,
        height=height,
        fps=fps,
        path=f"mocap-scene:seed={seed}&split={split}",
        generator=generator,
        backgrounds=backgrounds,
    )


def film_group(
    actions: tuple[str, ...],
    bodies: list[Body],
    rows: list[np.ndarray],
    seconds: np.ndarray,
    *,
    split: str,
    width: int,
    height: int,
    fps: float,
    path: str,
    generator: torch.Generator,
    backgrounds: Path | None = None,
) -> RenderedScene:
    """Draw cameras, wall and light for P persons who move, and film them.

    Args:
        actions: of each person.
        rows: (T, 43) of each person, as `Stage.pose` takes them.
        seconds: (T,), evenly spaced from 0.
        path: what the clip says it came from.
        backgrounds: as in `render_scene`.
    """
    cameras = group_cameras(rows, split, width / height, generator)
    wall = draw_background(2 * max(width, height), split, generator, backgrounds)
    offsets = background_offsets(cameras, depth=6.0)
    light = draw_light(generator)
    frames, boxes, visible, persons, points = photograph_group(
        bodies, rows, cameras, offsets, wall, light, width, height
    )
    clip = Clip(
        frames=degrade(frames, generator),
        frame_indices=tuple(range(len(seconds))),
        frame_seconds=tuple(float(s) for s in seconds),
        fps=fps,
        path=path,
    )
    return RenderedScene(
        clip=clip,
        actions=actions,
        boxes_xyxy=boxes,
        visible=visible,
        persons=persons,
        head_and_hands_xy_norm=points,
        split=split,
    )


def photograph_group(
    bodies: list[Body],
    rows: list[np.ndarray],
    cameras: list[Camera],
    offsets: list[tuple[float, float]],
    wall: Tensor,
    light: Light,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Photograph P persons in T moments before a wall.

    Args:
        rows: (T, 43) of each person, as `Stage.pose` takes them.
        cameras, offsets: one of each moment; wall as in `composite`.

    Returns:
        uint8 frames (T, 3, height, width), and boxes, `visible`, `persons` and head and hands of
        `RenderedScene`.
    """
    P = len(bodies)
    frames, boxes, visible, owners, points = [], [], [], [], []
    with Stage(bodies) as stage:
        for t, (camera, offset) in enumerate(zip(cameras, offsets, strict=True)):
            for p in range(P):
                stage.pose(p, rows[p][t])
            seen_at = [camera.project(stage.head_and_hands(p), width / height) for p in range(P)]
            points.append(torch.from_numpy(np.stack(seen_at)).float())
            picture, owner = stage.photograph(camera, light, width, height)
            frames.append(composite(picture, owner >= 0, wall, offset, width, height))
            alone = [
                _pixels_alone(stage, camera, light, p, rows, t, width, height) for p in range(P)
            ]
            masks = [torch.from_numpy(owner == p) for p in range(P)]
            seen = [
                bool(mask.sum() >= max(MIN_VISIBLE * pixels, 4))
                for mask, pixels in zip(masks, alone, strict=True)
            ]
            boxes.append(
                torch.stack(
                    [mask_box(m) if s else torch.zeros(4) for m, s in zip(masks, seen, strict=True)]
                )
            )
            visible.append(torch.tensor(seen))
            owners.append(torch.from_numpy(owner.astype(np.int16)))
    parts = (frames, boxes, visible, owners, points)
    return tuple(torch.stack(part) for part in parts)  # type: ignore[return-value]


def _pixels_alone(
    stage: Stage,
    camera: Camera,
    light: object,
    person: int,
    rows: list[np.ndarray],
    t: int,
    width: int,
    height: int,
) -> float:
    """Return how many pixels a person would fill alone in an unbounded frame, from the area of
    their joints' hull.

    The body is about as large as a standing person at its distance: 0.45 m2 of silhouette.
    """
    eye = np.array(camera.eye)
    distance = max(float(np.linalg.norm(rows[person][t, :3] - eye)), 0.3)
    pixels_per_metre = height / 2 / np.tan(np.radians(camera.field_of_view_degrees / 2)) / distance
    return 0.3 * pixels_per_metre**2


def _place(
    chosen: tuple[str, ...], seconds: np.ndarray, split: str, generator: torch.Generator
) -> list[np.ndarray]:
    """Return each person's rows (T, 43): positions about 1.1 m apart, depths and headings free."""
    P, out = len(chosen), []
    for p, action in enumerate(chosen):
        u = torch.rand(3, generator=generator).tolist()
        played = seconds * draw("speed", split, generator)
        start = draw_start(action, float(played[-1]), split, generator)
        rows = load_motion(action).poses(start + played)
        rows = shake_joints(rows, seconds, draw("joint_noise_radians", split, generator), generator)
        heading = 2 * np.pi * u[0]
        centre = rows[:, :3].mean(0) * (1, 0, 1)
        position = np.array([1.8 * (u[1] - 0.5), 0.0, 1.1 * (p - (P - 1) / 2) + 0.6 * (u[2] - 0.5)])
        turn = np.array([np.cos(heading / 2), 0.0, np.sin(heading / 2), 0.0])
        for row in rows:
            row[:3] = position + rotate_y(row[:3] - centre, heading)
            row[3:7] = quaternion_product(turn, row[3:7])
        out.append(rows)
    return out


def group_cameras(
    rows: list[np.ndarray], split: str, aspect: float, generator: torch.Generator
) -> list[Camera]:
    """Return a camera path that sees most of the group: persons who travel far leave the frame."""
    azimuth = np.radians(draw("azimuth_degrees", split, generator))
    elevation = np.radians(max(draw("elevation_degrees", split, generator), 3.0))
    u = torch.rand(6, generator=generator).tolist()
    field = 40.0 + 15.0 * u[0]
    positions = np.stack([r[:, :3].mean(0) for r in rows])
    middle = np.array([positions[:, 0].mean(), 0.8, positions[:, 2].mean()])
    across = np.array([-np.sin(azimuth), 0.0, np.cos(azimuth)])
    spread = float(np.abs((positions - middle) @ across).max()) / max(aspect, 0.5)
    distance = (max(1.0, spread + 0.35) + 0.35 * u[1]) / np.tan(np.radians(field / 2)) + 0.6
    direction = np.array(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.sin(azimuth) * np.cos(elevation),
        ]
    )
    steps = np.linspace(-0.5, 0.5, rows[0].shape[0])[:, None]
    drift = steps * (np.array(u[2:5])[None] - 0.5) * (0.8, 0.2, 0.8)
    shake = 0.015 * u[5] * torch.randn(len(steps), 3, generator=generator).numpy()
    return [
        Camera(
            eye=tuple(target + distance * direction),
            target=tuple(target),
            field_of_view_degrees=field,
        )
        for target in middle + drift + shake
    ]


def render_ava(
    out: Path | str,
    num_scenes: int,
    *,
    split: str = "train",
    seed: int = 0,
    width: int = 112,
    height: int = 112,
    num_frames: int = 16,
    fps: float = 8.0,
    videos: bool = False,
    actions: tuple[str, ...] | None = None,
    backgrounds: Path | None = None,
    first_second: int = 902,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write scenes as AVA does: one video of one key frame (its middle) each; existing scenes are
    kept.

        <out>/frames/<video>/<video>_000001.jpg ...       or <out>/videos/<video>.mp4 with `videos`
        <out>/ava_<split>.csv      video,second,x1,y1,x2,y2,action_id,person_id (fractions;
                                   second = `first_second`)
        <out>/ava_action_list.pbtxt        ids from 1, in the order of `actions`
        <out>/scenes.csv           video,split,fps,key_frame,num_frames (key_frame: index of the
                                   frame that the CSV describes)

    Args:
        out: folder; several splits may share it.
        num_scenes: scenes of this split; scene i is rendered from (seed, split, i).
        first_second: timestamp written for every key frame.

    Raises:
        UserError: as `render_scene`.
    """
    out = Path(out)
    names = tuple(actions or list_actions())
    out.mkdir(parents=True, exist_ok=True)
    write_action_list(out / "ava_action_list.pbtxt", names)
    rows: list[tuple[object, ...]] = []
    listing: list[tuple[object, ...]] = []
    for i in range(num_scenes):
        video = f"scene_{split}_{i:05d}"
        scene = render_scene(
            seed=(seed * 3 + SPLITS.index(split)) * 1_000_003 + i,
            split=split,
            width=width,
            height=height,
            num_frames=num_frames,
            fps=fps,
            actions=names,
            backgrounds=backgrounds,
        )
        write_scene_frames(out, video, scene.clip, videos)
        key = num_frames // 2
        for p, action in enumerate(scene.actions):
            if scene.visible[key, p]:
                x1, y1, x2, y2 = (
                    scene.boxes_xyxy[key, p] / torch.tensor([width, height, width, height])
                ).tolist()
                rows.append(
                    (
                        video,
                        f"{first_second:04d}",
                        *(f"{v:.4f}" for v in (x1, y1, x2, y2)),
                        names.index(action) + 1,
                        p,
                    )
                )
        listing.append((video, split, fps, key, num_frames))
        if progress is not None:
            progress(i + 1, num_scenes)
    write_csv(out / f"ava_{split}.csv", rows)
    kept = []
    if (out / "scenes.csv").is_file():
        with open(out / "scenes.csv", newline="") as file:
            kept = [tuple(row) for row in csv.reader(file) if row[1] not in ("split", split)]
    write_csv(
        out / "scenes.csv", [("video", "split", "fps", "key_frame", "num_frames"), *kept, *listing]
    )
    return out


def write_scene_frames(out: Path, video: str, clip: Clip, as_video: bool) -> None:
    """Write a scene's frames where AVA's layout has them, unless they are there."""
    if as_video:
        target = out / "videos" / f"{video}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            write_video(target, clip.frames, clip.fps)
        return
    folder = out / "frames" / video
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(clip.frames):
        path = folder / f"{video}_{t + 1:06d}.jpg"
        if not path.is_file():
            write_bytes(path, encode_jpeg(frame, quality=92).numpy().tobytes())


def write_action_list(path: Path, names: tuple[str, ...]) -> None:
    """Write the label map, ids from 1.

    Raises:
        UserError: if there is another one.
    """
    text = "".join(f'item {{\n  name: "{name}"\n  id: {i}\n}}\n' for i, name in enumerate(names, 1))
    if path.is_file() and path.read_text() != text:
        raise UserError(f"{path}: written for other actions; choose another folder")
    write_text(path, text)
