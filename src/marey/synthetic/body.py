"""The bodies of rendered persons: proportions, colours, and the URDF that the renderer loads.

The skeleton is that of `humanoid/humanoid.urdf` (same joints, same order, metres); its links get
closed limbs, clothes and proportions of our own, so that bodies differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from marey.synthetic.motion import draw

LINKS = (
    "root",
    "chest",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
)
"""Link names in index order, after the base."""
CLOTHES = {
    "skin": ("neck", "right_wrist", "left_wrist"),
    "shirt": ("chest", "right_shoulder", "left_shoulder"),
    "sleeves": ("right_elbow", "left_elbow"),
    "trousers": ("root", "right_hip", "left_hip"),
    "socks": ("right_knee", "left_knee"),
    "shoes": ("right_ankle", "left_ankle"),
}
"""Piece of clothing -> links of one colour."""
INERTIA = (
    '<inertial><mass value="1"/>'
    '<inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'
)
"""The loader wants one in every link; nothing here moves by physics."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """One person's shape and colours."""

    height: float
    """Factor on every length."""
    girth: float
    """Factor on every thickness."""
    limbs: float
    """Factor on the length of arms and legs."""
    colours: tuple[tuple[float, float, float], ...]
    """RGB in [0, 1], one per link in the order of `LINKS`."""


def draw_body(split: str, generator: torch.Generator) -> Body:
    """Draw a body: sizes from the partitions of the split, free colours for skin and clothes."""
    palette = {piece: torch.rand(3, generator=generator) for piece in CLOTHES}
    tone = 0.25 + 0.7 * float(torch.rand((), generator=generator))
    palette["skin"] = torch.tensor([1.0, 0.78, 0.62]) * tone
    if float(torch.rand((), generator=generator)) < 0.5:
        palette["sleeves"] = palette["skin"]
    if float(torch.rand((), generator=generator)) < 0.7:
        palette["socks"] = palette["trousers"]
    piece_of = {link: piece for piece, links in CLOTHES.items() for link in links}
    colours = tuple(tuple(float(v) for v in palette[piece_of[link]]) for link in LINKS)
    return Body(
        height=draw("height", split, generator),
        girth=draw("girth", split, generator),
        limbs=draw("limbs", split, generator),
        colours=colours,  # type: ignore[arg-type]
    )


def urdf(body: Body) -> str:
    """Return the URDF of the humanoid's links and joints with the body's proportions, lengths in
    metres."""
    scale, arm, leg = 0.25, 0.25 * body.limbs, 0.25 * body.limbs

    def limb(length: float, radius: float) -> tuple[str, tuple[float, float, float]]:
        return f'<capsule length="{length}" radius="{radius * body.girth * scale}"/>', (
            0.0,
            -length / 2,
            0.0,
        )

    def ball(radius: float, up: float) -> tuple[str, tuple[float, float, float]]:
        return f'<sphere radius="{radius * scale}"/>', (0.0, up * scale, 0.0)

    wide = body.girth * scale
    torso = f'<box size="{0.62 * wide} {1.05 * scale} {1.15 * wide}"/>'
    hips = f'<box size="{0.6 * wide} {0.95 * scale} {0.95 * wide}"/>'
    foot = f'<box size="{0.708 * leg} {0.22 * scale} {0.36 * wide}"/>'
    shapes = {
        "root": (hips, (0.0, 0.25 * scale, 0.0)),
        "chest": (torso, (0.0, 0.4 * scale, 0.0)),
        "neck": ball(0.43, 0.62),
        "right_hip": limb(1.686 * leg, 0.27),
        "right_knee": limb(1.64 * leg, 0.21),
        "right_shoulder": limb(1.1 * arm, 0.2),
        "right_elbow": limb(1.036 * arm, 0.17),
        "right_wrist": ball(0.2, 0.0),
        "right_ankle": (foot, (0.18 * leg, -0.09 * scale, 0.0)),
    }
    joints = {
        "root": ("base", "fixed", (0.0, 0.0, 0.0)),
        "chest": ("root", "spherical", (0.0, 0.944604 * scale, 0.0)),
        "neck": ("chest", "spherical", (0.0, 0.895576 * scale, 0.0)),
        "right_shoulder": ("chest", "spherical", (-0.0962 * scale, 0.8 * scale, 0.73244 * wide)),
        "right_elbow": ("right_shoulder", "revolute", (0.0, -1.099152 * arm, 0.0)),
        "right_wrist": ("right_elbow", "fixed", (0.0, -1.035788 * arm, 0.0)),
        "right_hip": ("root", "spherical", (0.0, 0.0, 0.339548 * wide)),
        "right_knee": ("right_hip", "revolute", (0.0, -1.686184 * leg, 0.0)),
        "right_ankle": ("right_knee", "spherical", (0.0, -1.63948 * leg, 0.0)),
    }
    parts = [f'<robot name="person"><link name="base">{INERTIA}</link>']
    for link in LINKS:
        right = link.replace("left", "right")
        shape, centre = shapes[right]
        tilt = "1.5707963 0 0" if "capsule" in shape else "0 0 0"
        parent, kind, offset = joints[right]
        if link != right:
            parent, offset = parent.replace("right", "left"), (offset[0], offset[1], -offset[2])
        parts.append(
            f'<link name="{link}">{INERTIA}<visual><origin rpy="{tilt}" xyz="{_text(centre)}"/>'
            f"<geometry>{shape}</geometry></visual></link>"
        )
        axis = (
            '<axis xyz="0 0 1"/><limit lower="-7" upper="7" effort="0" velocity="0"/>'
            if kind == "revolute"
            else ""
        )
        parts.append(
            f'<joint name="{link}" type="{kind}"><parent link="{parent}"/><child link="{link}"/>'
            f'<origin rpy="0 0 0" xyz="{_text(offset)}"/>{axis}</joint>'
        )
    return "".join(parts) + "</robot>"


def _text(vector: tuple[float, float, float]) -> str:
    return " ".join(f"{v:.6f}" for v in vector)
