"""The batches of a run: each process's parts of every training step, and loaders that read the data
once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from marey.datasets.clips import ClipDataset
from marey.datasets.poses import PoseWindows
from marey.errors import UserError
from marey.training.plan import Plan
from marey.training.sampler import Key, PartSampler, SampleStream
from marey.training.task import Batch, Task


def training_parts(
    task: Task,
    plan: Plan,
    *,
    first_step: int,
    rank: int,
    pin_memory: bool,
    unreadable: Callable[[int, str], None],
) -> Iterator[Batch]:
    """Return an endless iterator of one process's parts, from step `first_step` on.

    Args:
        task: gives the data and how items become a batch.
        plan: cuts the steps into parts.
        first_step: step number of the first part, 0-based.
        rank: number of the process.
        pin_memory: page-locked host memory, for faster copies to a GPU.
        unreadable: called with sample number and reason for every video left out of its batch.
    """
    data, settings = task.train_data, plan.settings
    if hasattr(data, "batches"):
        return data.batches(first_step * settings.accumulate, plan.part_size, rank, plan.world)
    labels = task.labels if settings.balanced_sampler else None
    stream = SampleStream(plan.num_samples, settings.seed, labels)
    sampler = PartSampler(
        stream,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        rank=rank,
        world=plan.world,
        first_step=first_step,
    )
    loader = DataLoader(
        data,
        batch_sampler=sampler,
        collate_fn=task.collate,
        num_workers=settings.workers,
        pin_memory=pin_memory,
    )
    # `iter` here and not at the first step: it draws from torch's generator, which every step seeds
    # for itself.
    return readable(iter(loader), unreadable)


def readable(batches: Iterable[Batch], unreadable: Callable[[int, str], None]) -> Iterator[Batch]:
    """Yield the batches without their "unreadable" entries, each of which is reported.

    Raises:
        UserError: if nothing of a batch can be read.
    """
    for batch in batches:
        reason = ""
        for sample, reason in batch.pop("unreadable", ()) if isinstance(batch, dict) else ():
            unreadable(sample, reason)
        if isinstance(batch, dict) and not batch:
            raise UserError(
                f"no video of a whole part of a batch can be read (the last: {reason}); "
                "list them all with 'marey data check'"
            )
        yield batch


def loader_of(
    data: Any, keys: Sequence[Key], task: Task, *, batch_size: int, workers: int
) -> DataLoader[Any]:
    """Return a loader of the items of these keys, in order."""
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    return DataLoader(data, batch_sampler=batches, collate_fn=task.collate, num_workers=workers)  # type: ignore[arg-type]


def without_augmentation(data: Any) -> Any:
    """Return the same clips under evaluation preprocessing; other data, which is not augmented when
    read, as it is."""
    if isinstance(data, PoseWindows):
        return PoseWindows(data.index)
    return ClipDataset(data.index, data.preprocess) if isinstance(data, ClipDataset) else data
