"""Backgrounds drawn at random; each split has kinds of its own, so no test background is trained
on."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from marey.errors import UserError

KINDS: dict[str, tuple[str, ...]] = {
    "train": ("gradient", "noise", "stripes", "rectangles"),
    "val": ("checker",),
    "test": ("discs", "waves"),
}
"""Split -> the kinds of drawn background it uses."""


def _rand(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator)


def draw_background(
    size: int, split: str, generator: torch.Generator, images: Path | None = None
) -> Tensor:
    """Draw a background, with a floor of another kind below a horizon in half the cases.

    Args:
        size: pixels of each side.
        split: "train", "val" or "test"; chooses the kind (`KINDS`), or the share of the image
            files.
        images: folder of JPEG/PNG files to use in half the cases; each file belongs to one split,
            by its position in the sorted list (eight of ten train, one val, one test).

    Returns:
        float, (3, size, size), values in [0, 1].
    """
    files = _image_files(images, split) if images is not None else ()
    if files and float(_rand(generator=generator)) < 0.5:
        return _image(
            files[int(torch.randint(len(files), (), generator=generator))], size, generator
        )
    wall = _texture(size, _pick(KINDS[split], generator), generator)
    if float(_rand(generator=generator)) < 0.5:
        floor = _texture(size, _pick(KINDS[split], generator), generator)
        horizon = int(size * (0.45 + 0.25 * float(_rand(generator=generator))))
        wall[:, horizon:] = floor[:, horizon:]
    return wall


def _pick(kinds: tuple[str, ...], generator: torch.Generator) -> str:
    return kinds[int(torch.randint(len(kinds), (), generator=generator))]


def _texture(size: int, kind: str, generator: torch.Generator) -> Tensor:
    colours = _rand(2, 3, 1, 1, generator=generator)
    contrast = 0.15 + 0.85 * float(_rand(generator=generator))
    colours[1] = colours[0] + contrast * (colours[1] - colours[0])
    share = _share(size, kind, generator)
    texture = colours[0] * (1 - share) + colours[1] * share
    grain = 0.06 * float(_rand(generator=generator))
    return (texture + grain * (_value_noise(size, size // 2, generator) - 0.5)).clamp(0, 1)


def _value_noise(size: int, cells: int, generator: torch.Generator) -> Tensor:
    grid = _rand(1, 1, cells, cells, generator=generator)
    return F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)[0]


def _share(size: int, kind: str, generator: torch.Generator) -> Tensor:
    """Return how much of the second colour each pixel has: (1, size, size) or (3, size, size) in
    [0, 1]."""
    axis = torch.linspace(0, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = float(_rand(generator=generator)) * 3.1416
    across = x * torch.cos(torch.tensor(angle)) + y * torch.sin(torch.tensor(angle))
    count = 2 + int(torch.randint(8, (), generator=generator))
    if kind == "gradient":
        return ((across - across.min()) / (across.max() - across.min()))[None]
    if kind == "noise":
        octaves = [
            _value_noise(size, cells, generator) / k for k, cells in enumerate((3, 7, 15, 31), 1)
        ]
        return torch.stack(octaves).sum(0) / sum(1 / k for k in range(1, 5))
    if kind == "stripes":
        return ((across * count * 2).floor() % 2)[None]
    if kind == "checker":
        return (((x * count).floor() + (y * count).floor()) % 2)[None]
    if kind == "waves":
        return (0.5 + 0.5 * torch.sin(across * count * 6.2832 + 2 * torch.sin(y * count)))[None]
    share = torch.zeros(3, size, size)
    for _ in range(count * 2):
        colour = _rand(3, 1, generator=generator)
        cx, cy, rx, ry = (
            float(v) for v in _rand(4, generator=generator) * torch.tensor([1, 1, 0.22, 0.22])
        )
        inside = (
            ((x - cx).abs() < rx) & ((y - cy).abs() < ry)
            if kind == "rectangles"
            else (x - cx) ** 2 + (y - cy) ** 2 < rx**2
        )
        share[:, inside] = colour
    return share


@functools.lru_cache(maxsize=8)
def _image_files(folder: Path, split: str) -> tuple[Path, ...]:
    files = sorted(
        p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    if not files:
        raise UserError(
            f"{folder}: no JPEG or PNG file to use as a background; give another folder or none"
        )
    digits = {"train": range(8), "val": (8,), "test": (9,)}[split]
    return tuple(p for i, p in enumerate(files) if i % 10 in digits)


def _image(path: Path, size: int, generator: torch.Generator) -> Tensor:
    image = decode_image(str(path), mode=ImageReadMode.RGB).float()[None] / 255
    side = min(image.shape[-2:])
    crop = int(side * (0.6 + 0.4 * float(_rand(generator=generator))))
    top = int(float(_rand(generator=generator)) * (image.shape[-2] - crop))
    left = int(float(_rand(generator=generator)) * (image.shape[-1] - crop))
    return F.interpolate(
        image[..., top : top + crop, left : left + crop],
        size=(size, size),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0].clamp(0, 1)
