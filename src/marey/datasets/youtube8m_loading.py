"""YouTube-8M records as tensors and batches, by index and as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from marey.datasets.tfrecord import (
    OnCorrupt,
    ReadReport,
    RecordLocation,
    count_records,
    locate_records,
)
from marey.datasets.youtube8m import FEATURES, MAX_FRAMES, ExampleReader, FrameExample
from marey.datasets.youtube8m_labels import LabelSpace


def example_tensors(
    example: FrameExample, space: LabelSpace, max_frames: int = MAX_FRAMES
) -> dict[str, Any]:
    """Return `features` (name -> float (T, dim)), `targets` float (K,) and `id` of an example."""
    return {
        "features": {
            key: torch.from_numpy(np.ascontiguousarray(example.values(key, max_frames)))
            for key in example.features
        },
        "targets": torch.from_numpy(space.targets(example.labels, example.source)),
        "id": example.id,
    }


def collate_features(
    samples: Sequence[dict[str, Any]], pad_to: int | None = None
) -> dict[str, Any]:
    """Pad videos to one length with exact zeros and say which frames are real.

    Args:
        samples: from `example_tensors`.
        pad_to: seconds; None pads to the longest of the batch
            (the answer is the same, a model masks exactly).

    Returns:
        `features`: name -> float (B, T, dim); `mask`: bool (B, T), True at real frames; `targets`:
            float (B, K);
        `ids`: list.
    """
    lengths = [len(next(iter(sample["features"].values()))) for sample in samples]
    length = max(lengths) if pad_to is None else pad_to
    features: dict[str, Tensor] = {}
    for key, first in samples[0]["features"].items():
        features[key] = first.new_zeros(len(samples), length, first.shape[1])
        for row, sample in enumerate(samples):
            features[key][row, : lengths[row]] = sample["features"][key]
    mask = torch.arange(length)[None] < torch.tensor(lengths)[:, None]
    return {
        "features": features,
        "mask": mask,
        "targets": torch.stack([sample["targets"] for sample in samples]),
        "ids": [sample["id"] for sample in samples],
    }


class IndexedExamples(Dataset):
    """Records read by number, for data whose order a sampler decides
    (some millions of records on a local disk)."""

    def __init__(
        self,
        shards: Sequence[str],
        space: LabelSpace,
        *,
        features: Mapping[str, int] = FEATURES,
        level: str = "frame",
        max_frames: int = MAX_FRAMES,
        on_corrupt: OnCorrupt = "raise",
    ) -> None:
        """Find every record by the length fields; with `on_corrupt="skip"` damaged ones are found
        and left out now."""
        self.space, self.features, self.level, self.max_frames = (
            space,
            dict(features),
            level,
            max_frames,
        )
        self.report = ReadReport()
        self.locations = [
            location
            for shard in shards
            for location in locate_records(shard, on_corrupt=on_corrupt, report=self.report)
        ]
        if on_corrupt == "skip":
            with ExampleReader(self.features, level, "skip", self.report) as reader:
                self.locations = [
                    location for location in self.locations if reader.example(location) is not None
                ]

    def __len__(self) -> int:
        """Number of records."""
        return len(self.locations)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Return the tensors of record i; `(epoch, i)` is accepted, features have no
        augmentation."""
        index = key[1] if isinstance(key, tuple) else key
        with ExampleReader(self.features, self.level, "raise", ReadReport()) as reader:
            example = reader.example(self.locations[index])
        assert example is not None
        return {**example_tensors(example, self.space, self.max_frames), "sample": index}


class StreamedExamples(IterableDataset):
    """Records streamed from many shards: divided over ranks and workers, shuffled in a bounded
    buffer, resumable.

    With at least as many shards as readers every reader takes whole shards; with fewer, records are
    dealt out in turn. Either way no record is read twice in an epoch. Order depends on seed, epoch
    and number of readers only; the buffer holds locations, not data, so a resumed epoch passes over
    what is done without reading it.
    """

    def __init__(
        self,
        shards: Sequence[str],
        space: LabelSpace,
        *,
        features: Mapping[str, int] = FEATURES,
        level: str = "frame",
        max_frames: int = MAX_FRAMES,
        shuffle_buffer: int = 0,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        on_corrupt: OnCorrupt = "raise",
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            shards: TFRecord files.
            space: label space.
            features: name -> width.
            level: "frame" or "video".
            max_frames: later seconds are dropped.
            shuffle_buffer: records held for shuffling; 0 keeps the order of the files.
            seed: of the shuffle; the epoch is mixed in.
            rank, num_ranks: of this process.
            on_corrupt: refuse or skip damaged records (`report.skipped` names them).
        """
        self.shards, self.space, self.features = list(shards), space, dict(features)
        self.level, self.max_frames, self.shuffle_buffer, self.seed = (
            level,
            max_frames,
            shuffle_buffer,
            seed,
        )
        self.rank, self.num_ranks, self.on_corrupt = rank, num_ranks, on_corrupt
        self.report = ReadReport()
        self.epoch, self._batches_done, self._batch_size = 0, 0, 1
        self._counts: dict[str, int] = {}

    def set_epoch(self, epoch: int, *, batches_done: int = 0, batch_size: int = 1) -> None:
        """Start at an epoch, or in the middle of one.

        Args:
            epoch: mixed into the shuffle.
            batches_done: batches this rank's loader had given out when it stopped.
            batch_size: of that loader (it must not drop the last batch).
        """
        self.epoch, self._batches_done, self._batch_size = epoch, batches_done, batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the samples of this rank and worker."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        worker, skip = self._where_to_go_on(worker, workers)
        with ExampleReader(self.features, self.level, self.on_corrupt, self.report) as reader:
            for location in self._shuffled(worker, workers, skip):
                example = reader.example(location)
                if example is not None:
                    yield {
                        **example_tensors(example, self.space, self.max_frames),
                        "sample": location.record,
                    }

    def num_batches(self, batch_size: int, workers: int = 1) -> int:
        """Return how many batches this epoch gives this rank through a loader with so many workers
        (0 counts as 1)."""
        return sum(
            -(-self._part_size(worker, max(workers, 1)) // batch_size)
            for worker in range(max(workers, 1))
        )

    def num_records(self) -> int:
        """Return the records of all shards, by their length fields (counted once)."""
        return sum(self._count(shard) for shard in self.shards)

    def _count(self, shard: str) -> int:
        if shard not in self._counts:
            self._counts[shard] = count_records(shard, on_corrupt=self.on_corrupt)
        return self._counts[shard]

    def _part_size(self, worker: int, workers: int) -> int:
        part, parts = self.rank * workers + worker, self.num_ranks * workers
        shards = self._epoch_shards()
        if len(shards) >= parts:
            return sum(self._count(shard) for shard in shards[part::parts])
        return len(range(part, self.num_records(), parts))

    def _epoch_shards(self) -> list[str]:
        shards = list(self.shards)
        if self.shuffle_buffer:
            np.random.default_rng([self.seed, self.epoch]).shuffle(shards)
        return shards

    def _part(self, worker: int, workers: int) -> Iterator[RecordLocation]:
        part, parts = self.rank * workers + worker, self.num_ranks * workers
        shards = self._epoch_shards()
        whole = len(shards) >= parts
        number = 0
        for shard in shards[part::parts] if whole else shards:
            for location in locate_records(shard, on_corrupt=self.on_corrupt, report=self.report):
                if whole or number % parts == part:
                    yield location
                number += 1

    def _shuffled(self, worker: int, workers: int, skip: int) -> Iterator[RecordLocation]:
        """Give locations in shuffled order from the `skip`-th on; what is passed over is not
        read."""
        generator = np.random.default_rng([self.seed, self.epoch, self.rank, worker])
        buffer: list[RecordLocation] = []
        done = 0
        for location in self._part(worker, workers):
            buffer.append(location)
            if len(buffer) > self.shuffle_buffer:
                last = (
                    buffer.pop(int(generator.integers(len(buffer))))
                    if self.shuffle_buffer
                    else buffer.pop()
                )
                done += 1
                if done > skip:
                    yield last
        generator.shuffle(buffer)  # type: ignore[arg-type]
        yield from buffer[max(skip - done, 0) :]

    def _where_to_go_on(self, worker: int, workers: int) -> tuple[int, int]:
        """Return whose part a worker takes over, and how many of its examples the loader had
        already given.

        A loader takes batches from its workers in turn and passes over those that have no more; the
        worker whose turn it was must be the first one again. Exact unless damaged records were
        skipped.
        """
        if workers == 1:
            return 0, self._batches_done * self._batch_size
        if not self._batches_done:
            return worker, 0
        left = [-(-self._part_size(w, workers) // self._batch_size) for w in range(workers)]
        given = [0] * workers
        turn = 0
        for _ in range(min(self._batches_done, sum(left))):
            while not left[turn]:
                turn = (turn + 1) % workers
            left[turn] -= 1
            given[turn] += 1
            turn = (turn + 1) % workers
        taken = (worker + turn) % workers
        return taken, given[taken] * self._batch_size
