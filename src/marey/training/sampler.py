"""The order of training samples: one endless stream that every process cuts its own parts from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

Key = tuple[int, int]
"""(epoch, sample number): all randomness of an item follows from it and the seed."""

_REDRAWN = 1_000_000
"""A sample drawn for the n-th time in one balanced epoch is asked for as epoch + n * this, so that
its augmentation differs."""


class SampleStream:
    """Shuffled epochs one after the other; the key at position p is a pure function of (seed, p).

    No sample is dropped or repeated to fill a batch: a batch may span two epochs. The whole state
    of the stream is the position.
    """

    def __init__(self, num_samples: int, seed: int, labels: Sequence[int] | None = None) -> None:
        """`labels` makes the draws balanced: classes equally often, with replacement, num_samples
        draws an epoch."""
        self.num_samples = num_samples
        self.seed = seed
        self.probabilities = None if labels is None else balanced_probabilities(labels)
        self._epoch: tuple[int, list[Key]] = (-1, [])

    def epoch_keys(self, epoch: int) -> list[Key]:
        """Return the keys of one epoch in order."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._drawn(epoch))
        return self._epoch[1]

    def _drawn(self, epoch: int) -> list[Key]:
        random = np.random.default_rng((self.seed, epoch))
        if self.probabilities is None:
            return [(epoch, int(sample)) for sample in random.permutation(self.num_samples)]
        times: dict[int, int] = {}
        keys = []
        for drawn in random.choice(self.num_samples, self.num_samples, p=self.probabilities):
            sample = int(drawn)
            keys.append((epoch + _REDRAWN * times.get(sample, 0), sample))
            times[sample] = times.get(sample, 0) + 1
        return keys

    def keys(self, start: int, stop: int) -> list[Key]:
        """Return the keys at positions [start, stop) of the stream."""
        found = []
        for position in range(start, stop):
            epoch, rank = divmod(position, self.num_samples)
            found.append(self.epoch_keys(epoch)[rank])
        return found


def balanced_probabilities(labels: Sequence[int]) -> np.ndarray:
    """Return the probability (N,) of drawing each sample that gives every class an equal share of
    the draws."""
    values = np.asarray(labels)
    counts = np.bincount(values)
    weights = 1.0 / counts[values]
    return weights / weights.sum()


class PartSampler(Sampler[list[Key]]):
    """The keys of every part (micro-batch) of one process, from a given step on, in an endless
    iterator.

    A step of `batch_size` clips is cut into accumulate x world parts; part a of rank r is number a
    * world + r, so the clips of a step are the same however many processes share them.
    """

    def __init__(
        self,
        stream: SampleStream,
        *,
        batch_size: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
    ) -> None:
        self.stream, self.batch_size, self.accumulate = stream, batch_size, accumulate
        self.rank, self.world, self.first_step = rank, world, first_step
        self.part_size = batch_size // (accumulate * world)

    def __iter__(self) -> Iterator[list[Key]]:
        step = self.first_step
        while True:
            for part in range(self.accumulate):
                start = step * self.batch_size + (part * self.world + self.rank) * self.part_size
                yield self.stream.keys(start, start + self.part_size)
            step += 1


def steps_of_epochs(epochs: float, num_samples: int, batch_size: int) -> int:
    """Return how many steps show every sample at least `epochs` times."""
    return max(1, math.ceil(epochs * num_samples / batch_size - 1e-9))


def finishes_epoch(step: int, num_samples: int, batch_size: int) -> bool:
    """Return whether step number `step` (0-based) uses the last sample of an epoch."""
    return (step + 1) * batch_size // num_samples > step * batch_size // num_samples
