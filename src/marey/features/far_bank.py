"""The bank of other footage that comes with the package: it chooses the score that finds videos
unlike those of training.

Sixteen short videos of our own: rendered people, and patterns without anybody
(`tools/far_bank.py`). They are stored as videos, so that every encoder can read them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marey.checkpoints.sources import WEIGHTS_FOLDER
from marey.datasets.index import DatasetIndex, Sample
from marey.transforms.preprocess import Preprocess
from marey.video.decode import open_video

FAR_BANK = WEIGHTS_FOLDER / "far-bank"


def far_bank() -> DatasetIndex:
    """Return the videos of the bank, without labels."""
    paths = sorted(FAR_BANK.glob("*.mp4"))
    return DatasetIndex(
        samples=tuple(Sample(path=path, label=None) for path in paths),
        class_names=(),
        name="far bank",
        root=FAR_BANK,
    )


def far_clips(preprocess: Preprocess) -> Tensor:
    """Return one view of every video of the bank as a model takes it, float (M, T, 3, S, S)."""
    views = []
    for sample in far_bank().samples:
        with open_video(sample.path) as reader:
            views.append(preprocess.views(reader, num_temporal=1)[0][:1])
    return torch.cat(views)
