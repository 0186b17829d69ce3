"""Videos whose answers are known by construction, and models that need no training
(`toy_models`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marey.datasets import open_dataset
from marey.datasets.index import DatasetIndex
from marey.video.encode import write_video

HERE = Path(__file__).parent


@pytest.fixture
def data(tmp_path: Path) -> DatasetIndex:
    """Two videos a class, dark or light, that get brighter with time, and one file that is no
    video."""
    root = tmp_path / "set"
    for label, level in (("dark", 60), ("light", 190)):
        for i in range(2):
            frames = torch.full((12, 3, 48, 60), level, dtype=torch.uint8)
            frames += (torch.arange(12, dtype=torch.uint8) * 3 + i).view(12, 1, 1, 1)
            write_video(root / label / f"{label}{i}.mp4", frames, fps=24.0)
    (root / "light" / "broken.mp4").write_bytes(b"not a video")
    return open_dataset(root)


@pytest.fixture(autouse=True)
def toys_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
