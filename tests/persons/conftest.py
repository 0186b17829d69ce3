"""Drawn people: frames and videos in which the networks find somebody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from marey.persons.poses import PoseFinder
from marey.persons.sources import pose_finder
from marey.video.encode import write_video

GOLDEN = Path(__file__).parent / "golden.npz"

People = list[tuple[float, float, float]]
"""Per person x of the left side, y of the top and height, in pixels."""


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Drawn frames and what TF.js answered to them (tools/golden_person_networks.py)."""
    with np.load(GOLDEN) as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def draw(golden) -> Callable[..., Tensor]:
    """A function that draws people, cut out of a golden frame, on an empty background."""
    person, nobody = golden["one/frame"], golden["nobody/frame"]
    mask = (person != nobody).any(axis=2)
    rows, columns = np.nonzero(mask)
    part = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]

    def draw_people(people: People, size: tuple[int, int] = (256, 256)) -> Tensor:
        frame = Image.fromarray(nobody).resize(size[::-1])
        for x, y, height in people:
            width = round(height * mask[part].shape[1] / mask[part].shape[0])
            picture = Image.fromarray(person[part]).resize((width, round(height)))
            shape = Image.fromarray(mask[part]).resize((width, round(height)))
            frame.paste(picture, (round(x), round(y)), shape)
        return torch.from_numpy(np.array(frame)).permute(2, 0, 1)

    return draw_people


@pytest.fixture(scope="session")
def movenet() -> PoseFinder:
    """MoveNet on whole frames."""
    return pose_finder("movenet", threads=1)


@pytest.fixture(scope="session")
def auto() -> PoseFinder:
    """MoveNet with NanoDet's proposals and a second look."""
    return pose_finder("auto", threads=1)


@pytest.fixture(scope="session")
def walkers(draw, tmp_path_factory) -> Path:
    """A video of 2 s at 12.5 fps, 320 x 240: one person walks right, a smaller one walks left."""
    path = tmp_path_factory.mktemp("videos") / "walkers.mp4"
    frames = [
        draw([(20 + 4 * t, 40, 170), (230 - 4 * t, 30, 110)], size=(240, 320)) for t in range(25)
    ]
    write_video(path, torch.stack(frames), fps=12.5)
    return path
