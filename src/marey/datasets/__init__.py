"""Which videos there are, with their labels (`open_dataset`), and clips of them for training (`clips`)."""

from marey.datasets.index import DatasetIndex, Sample
from marey.datasets.open import open_dataset

__all__ = ["DatasetIndex", "Sample", "open_dataset"]
