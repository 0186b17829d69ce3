"""Scenes composed of rendered single-person clips: several persons and exact boxes without further
rendering.

Each scene is one to four clips, each cut to a window around its person and resized into a tile of
the canvas (mosaic augmentation, Bochkovskiy et al., "YOLOv4", 2020, over whole clips). Persons do
not hide each other here; in `marey.synthetic.scenes` they do.
"""

from __future__ import annotations

import csv
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marey.datasets.pack import open_packed
from marey.errors import UserError
from marey.files import file_identity
from marey.transforms.preprocess import Preprocess


class MosaicScenes(torch.utils.data.Dataset[dict[str, Any]]):
    """Items as `AvaDataset` gives them, drawn anew for every (epoch, i).

    Args:
        folder: packed clips of one person each, with boxes.npy
            (`marey.synthetic.dataset.render_dataset`).
        preprocess: size and normalisation of a scene; its frames are the clips' frames.
        length: scenes called one epoch; None: half as many as there are clips.
        max_persons: tiles of a scene, 1 to 4.
        single_share: share of scenes that are one clip as it is, flipped at most.
        split: which clips.
        seed: a scene follows from (seed, epoch, i).

    Raises:
        UserError: if the folder has no boxes or no clip of the split.
    """

    def __init__(
        self,
        folder: str | Path,
        preprocess: Preprocess,
        *,
        length: int | None = None,
        max_persons: int = 4,
        single_share: float = 0.2,
        split: str = "train",
        seed: int = 0,
    ) -> None:
        self.folder, self.preprocess, self.seed = Path(folder), preprocess, seed
        self.max_persons, self.single_share = max_persons, single_share
        if not (self.folder / "boxes.npy").is_file():
            raise UserError(f"{folder}: no boxes.npy; expected clips of 'marey data render mocap'")
        self.packed = open_packed(self.folder)
        self.boxes = np.load(self.folder / "boxes.npy", mmap_mode="r")
        self.class_names: tuple[str, ...] = tuple(
            json.loads((self.folder / "packed.json").read_text())["class_names"]
        )
        with open(self.folder / "manifest.csv", newline="") as file:
            rows = [
                (i, row["label"])
                for i, row in enumerate(csv.DictReader(file))
                if row["split"] == split
            ]
        middle = self.packed.array.shape[1] // 2
        self.rows = [
            (i, self.class_names.index(label)) for i, label in rows if self.boxes[i, middle, 2] > 0
        ]
        if not self.rows:
            raise UserError(
                f"{folder}: no clip of split '{split}' shows a person; expected one of train, "
                "val, test"
            )
        self.length = length or max(1, len(self.rows) // 2)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        epoch, i = where
        generator = torch.Generator().manual_seed(
            zlib.crc32(f"mosaic/{self.seed}/{epoch}/{i}".encode())
        )
        S, T = self.preprocess.image_size, self.packed.array.shape[1]
        canvas = torch.zeros(T, 3, S, S)
        boxes, labels = [], []
        for left, top, width, height in self._tiles(S, generator):
            row, label = self.rows[int(torch.randint(len(self.rows), (), generator=generator))]
            tile, box = self._cut(row, width, height, generator)
            canvas[:, :, top : top + height, left : left + width] = tile
            boxes.append((box + torch.tensor([left, top, left, top])) / S)
            labels.append(F.one_hot(torch.tensor(label), len(self.class_names)).float())
        clip = self.preprocess.normalise(
            self._colour(canvas, generator).round().clamp(0, 255).to(torch.uint8)
        )
        return {
            "clip": clip,
            "boxes_xyxy_norm": torch.stack(boxes),
            "labels": torch.stack(labels),
            "sample": i,
        }

    def identity(self, i: int) -> list[Any]:
        """Return what item i is made of, in JSON types: the key of features stored of it."""
        files = [
            file_identity(self.folder / name)
            for name in ("frames.npy", "boxes.npy", "manifest.csv")
        ]
        return [
            *files,
            repr(self.preprocess),
            self.max_persons,
            self.single_share,
            len(self.rows),
            self.seed,
            i,
        ]

    def _tiles(self, S: int, generator: torch.Generator) -> list[tuple[int, int, int, int]]:
        """Draw left, top, width, height of each tile."""
        u = torch.rand(4, generator=generator).tolist()
        if u[0] < self.single_share:
            return [(0, 0, S, S)]
        across, down = (int(S * (0.35 + 0.3 * v)) for v in u[1:3])
        count = 1 + int(u[3] * self.max_persons)
        two = [(0, 0, across, S), (across, 0, S - across, S)]
        three = [two[0], (across, 0, S - across, down), (across, down, S - across, S - down)]
        four = [(0, 0, across, down), (0, down, across, S - down), *three[1:]]
        return {1: [(0, 0, S, S)], 2: two, 3: three, 4: four}[min(count, 4)]

    def _cut(
        self, row: int, width: int, height: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Cut a window that holds the key frame's person, resize it to a tile; the box in the
        tile's pixels."""
        frames = self.packed.frames(row).float()  # (T, 3, s, s)
        s, middle = frames.shape[-1], frames.shape[0] // 2
        x1, y1, x2, y2 = self.boxes[row, middle].tolist()
        u = torch.rand(4, generator=generator).tolist()
        if u[3] < 0.5:
            frames, x1, x2 = frames.flip(-1), s - x2, s - x1

        # A window of the tile's shape, at least 5 % wider than the person and inside the frame.
        aspect = width / height
        need = max(x2 - x1, (y2 - y1) * aspect)  # width of the tightest window
        full = s * min(1.0, aspect)
        wide = min(max(need * 1.05, need + (full - need) * u[0]), full)
        tall = wide / aspect
        left = _between(x1, x2, wide, s, u[1])
        top = _between(y1, y2, tall, s, u[2])
        x, y = int(left), int(top)
        r, b = max(x + 1, min(s, round(left + wide))), max(y + 1, min(s, round(top + tall)))
        tile = F.interpolate(
            frames[:, :, y:b, x:r], size=(height, width), mode="bilinear", align_corners=False
        )
        scale = torch.tensor([width / (r - x), height / (b - y)] * 2)
        box = (torch.tensor([x1, y1, x2, y2]) - torch.tensor([x, y, x, y])) * scale
        limits = torch.tensor([width, height] * 2, dtype=torch.float32)
        return tile, torch.minimum(box.clamp(min=0), limits)

    def _colour(self, canvas: Tensor, generator: torch.Generator) -> Tensor:
        gain, shift = (torch.rand(2, generator=generator) - 0.5).tolist()
        return (canvas - 128) * (1 + 0.6 * gain) + 128 + 50 * shift


def _between(low: float, high: float, length: float, size: int, share: float) -> float:
    """Start of a window of `length` in [0, size] that covers [low, high] where it can."""
    first, last = max(0.0, high - length), min(low, size - length)
    return max(0.0, min(first + (last - first) * share, size - length))
