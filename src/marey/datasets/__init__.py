"""Data sets: their index (`open_dataset`), and clips of them as tensors
(`marey.datasets.clips`)."""

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset

__all__ = ["DatasetIndex", "Sample", "open_dataset"]
