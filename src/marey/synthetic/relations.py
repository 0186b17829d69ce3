"""Scenes in which a person's label depends on another person: watching, following, handing over.

Every label has a twin of the same posture and movement of the person it describes; only the other
person differs. Whoever sees the labelled person alone cannot tell the two apart.

    stand:  "watch" (the other moves: jumps, kicks, dances ..) or "wait" (the other stands too)
    walk:   "follow" (the other walks ahead, the same way) or "walk" (the other walks another way)
    reach:  "hand over" (the other reaches towards them) or "reach" (the other stands)

The layout is AVA's (`marey.synthetic.scenes.render_ava`); only the labelled person has rows.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marey.errors import unknown_name
from marey.files import write_csv
from marey.synthetic.body import draw_body
from marey.synthetic.motion import (
    SPLITS,
    draw,
    draw_start,
    load_motion,
    quaternion_product,
    rotate_y,
)
from marey.synthetic.renderer import shake_joints
from marey.synthetic.scenes import (
    RenderedScene,
    film_group,
    write_action_list,
    write_scene_frames,
)

RELATIONS = ("follow", "hand over", "reach", "wait", "walk", "watch")
TWINS = {"watch": "wait", "follow": "walk", "hand over": "reach"}
"""Label -> the label with the same movement of the labelled person."""
WATCHED = ("jump", "kick", "dance a", "dance b", "spin")
"""What the other person does where somebody watches."""
POSTURE = {
    "watch": "stand",
    "wait": "stand",
    "follow": "walk",
    "walk": "walk",
    "hand over": "reach",
    "reach": "reach",
}
"""Label -> movement of the labelled person."""
RIGHT_SHOULDER = slice(24, 28)
"""Columns of a motion row with the quaternion of the right shoulder."""


def render_relation(
    label: str,
    *,
    seed: int,
    split: str = "train",
    width: int = 112,
    height: int = 112,
    num_frames: int = 8,
    fps: float = 4.0,
) -> RenderedScene:
    """Render one scene; person 0 is the one the label is about, person 1 the other.

    In half the scenes a third person stands by, whatever the label.

    Args:
        label: one of `RELATIONS`.
        seed: where every random parameter comes from.
        split: "train", "val" or "test" (`marey.synthetic.motion.PARTITIONS`).

    Raises:
        UserError: if the label or the split is unknown.
    """
    if label not in RELATIONS:
        raise unknown_name("relation", label, RELATIONS)
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    generator = torch.Generator().manual_seed(seed)
    seconds = np.arange(num_frames) / fps
    u = torch.rand(8, generator=generator).tolist()

    # The labelled person looks along `heading`; the other stands or starts before them.
    heading = 2 * np.pi * u[0]
    ahead = np.array([np.cos(heading), 0.0, -np.sin(heading)])
    aside = np.array([np.sin(heading), 0.0, np.cos(heading)])
    gap = {"stand": 1.5, "walk": 1.3, "reach": 1.0}[POSTURE[label]] + 0.3 * (u[1] - 0.5)
    place = gap * ahead + 0.3 * (u[2] - 0.5) * aside
    other, turn = "stand", np.pi + 0.4 * (u[3] - 0.5)  # faces the labelled person
    if label == "watch":
        other = WATCHED[int(u[4] * len(WATCHED))]
        turn = 2 * np.pi * u[3]
    elif label == "follow":
        other, turn = "walk", 0.2 * (u[3] - 0.5)
    elif label == "walk":
        other, turn = "walk", np.pi + np.pi * (u[3] - 0.5)
    elif label == "hand over":
        other = "reach"

    people = [(POSTURE[label], heading, np.zeros(3)), (other, heading + turn, place)]
    if u[5] < 0.5:
        side = 1.2 if u[6] < 0.5 else -1.2
        people.append(("stand", 2 * np.pi * u[7], side * aside - 0.3 * ahead))
    bodies = [draw_body(split, generator) for _ in people]
    rows = [_moving(*person, seconds, split, generator) for person in people]
    return film_group(
        tuple(name for name, _, _ in people),
        bodies,
        rows,
        seconds,
        split=split,
        width=width,
        height=height,
        fps=fps,
        path=f"mocap-relation:{label}?seed={seed}&split={split}",
        generator=generator,
    )


def _moving(
    action: str,
    heading: float,
    place: np.ndarray,
    seconds: np.ndarray,
    split: str,
    generator: torch.Generator,
) -> np.ndarray:
    """Return the rows (T, 43) of one person.

    "stand" holds a moment of a walk; "reach" also raises the right arm forward towards the middle
    of the clip and lowers it again.
    """
    still = action in ("stand", "reach")
    name = "walk" if still else action
    played = seconds * draw("speed", split, generator)
    start = draw_start(name, float(played[-1]), split, generator)
    if still:
        start, played = 0.0, np.zeros_like(played)
    rows = load_motion(name).poses(start + played)
    rows = shake_joints(rows, seconds, draw("joint_noise_radians", split, generator), generator)
    if action == "reach":
        raised = np.sin(np.pi * (np.arange(len(rows)) + 0.5) / len(rows)) * np.radians(85)
        rows[:, RIGHT_SHOULDER] = 0.0
        rows[:, RIGHT_SHOULDER.start] = np.cos(raised / 2)
        rows[:, RIGHT_SHOULDER.stop - 1] = np.sin(raised / 2)
    turn = np.array([np.cos(heading / 2), 0.0, np.sin(heading / 2), 0.0])
    centre = rows[:, :3].mean(0) * (1, 0, 1)
    for row in rows:
        row[:3] = place + rotate_y(row[:3] - centre, heading)
        row[3:7] = quaternion_product(turn, row[3:7])
    return rows


def render_relations(
    out: Path | str,
    num_scenes: int,
    *,
    split: str = "train",
    seed: int = 0,
    num_frames: int = 8,
    fps: float = 4.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write scenes in AVA's layout, the labels in turn; `tubes.csv` has the box of every frame.

        <out>/frames/..., ava_<split>.csv, ava_action_list.pbtxt, scenes.csv    as `render_ava`
        <out>/tubes.csv       video,frame,x1,y1,x2,y2: fractions; zeros where nobody is seen

    A scene in whose key frame one of the two is not seen is drawn again.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    write_action_list(out / "ava_action_list.pbtxt", RELATIONS)
    rows: list[tuple[object, ...]] = []
    listing: list[tuple[object, ...]] = []
    tubes: list[tuple[object, ...]] = []
    key = num_frames // 2
    for i in range(num_scenes):
        video, label = f"relation_{split}_{i:05d}", RELATIONS[i % len(RELATIONS)]
        for attempt in range(20):
            drawn = (seed * 3 + SPLITS.index(split)) * 1_000_003 + i + 50_000 * attempt
            scene = render_relation(label, seed=drawn, split=split, num_frames=num_frames, fps=fps)
            if bool(scene.visible[key, :2].all()):
                break
        write_scene_frames(out, video, scene.clip, False)
        height, width = scene.clip.frames.shape[-2:]
        tube = scene.boxes_xyxy[:, 0] / torch.tensor([width, height, width, height])
        corners = [[f"{v:.4f}" for v in box] for box in tube.tolist()]
        rows.append((video, "0902", *corners[key], RELATIONS.index(label) + 1, 0))
        listing.append((video, split, fps, key, num_frames))
        tubes += [(video, t, *box) for t, box in enumerate(corners)]
        if progress is not None:
            progress(i + 1, num_scenes)
    write_csv(out / f"ava_{split}.csv", rows)
    write_csv(out / "tubes.csv", [("video", "frame", "x1", "y1", "x2", "y2"), *tubes])
    write_csv(out / "scenes.csv", [("video", "split", "fps", "key_frame", "num_frames"), *listing])
    return out


def read_tubes(root: Path | str) -> dict[str, Tensor]:
    """Return video -> boxes (T, 4) of the labelled person, as fractions."""
    found: dict[str, list[list[float]]] = {}
    with open(Path(root) / "tubes.csv", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["video"], []).append(
                [float(row[name]) for name in ("x1", "y1", "x2", "y2")]
            )
    return {video: torch.tensor(boxes) for video, boxes in found.items()}


def mask_outside(frames: Tensor, tube_xyxy_norm: Tensor, grey: int = 128) -> Tensor:
    """Return uint8 frames (T, 3, H, W) in which everything outside a person's boxes (T, 4) is
    grey."""
    height, width = frames.shape[-2:]
    masked = torch.full_like(frames, grey)
    scale = torch.tensor([width, height, width, height])
    for t, box in enumerate((tube_xyxy_norm * scale).round().int().tolist()):
        x1, y1, x2, y2 = box
        masked[t, :, y1:y2, x1:x2] = frames[t, :, y1:y2, x1:x2]
    return masked
