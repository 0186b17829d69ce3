"""Order accuracy and order reliance of a checkpoint over the videos of a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints import Checkpoint
from marey.datasets import open_dataset
from marey.datasets.clips import read_frames
from marey.datasets.index import DatasetIndex, subset
from marey.errors import UserError, VideoError
from marey.order.correction import evaluate_order_accuracy
from marey.order.reliance import order_reliance
from marey.order.video import preprocess_of
from marey.transforms.preprocess import Preprocess


def order_accuracy_on(checkpoint: Checkpoint, index: DatasetIndex, *, shuffles: int = 4, seed: int = 0,
                      batch_size: int = 8, device: str = "cpu", backwards: Collection[str] = (),
                      method: str = "path") -> dict[str, Any]:
    """Measure OrderAcc on the videos of a data set: what `marey evaluate` says of an order model.

    Args:
        backwards: classes whose clips are recordings played backwards; they are turned round first, as in training
            (see `OrderArguments.backwards`).
        method: see `recover_order`.

    Returns:
        As `evaluate_order_accuracy`, and "unreadable": messages of videos that could not be read.

    Raises:
        UserError: as `evaluate_order_accuracy`.
    """
    unreadable: list[str] = []
    preprocess = preprocess_of(checkpoint)
    model = checkpoint.model.to(device).eval()
    batches = (centre_clips(preprocess, [clip.flip(0) if label in backwards else clip
                                         for clip, label in zip(frames, labels, strict=True)]).to(device)
               for frames, labels in frame_batches(index, preprocess, batch_size, unreadable))
    found = evaluate_order_accuracy(model, batches, shuffles=shuffles, seed=seed, method=method)
    return {**found, "unreadable": unreadable}


def reliance_on(checkpoint: Checkpoint, data: str, *, dataset: str | None = None, split: str | None = None,
                corrector: Checkpoint | None = None, shuffles: int = 4, seed: int = 0, limit: int | None = None,
                batch_size: int = 4, device: str = "cpu") -> dict[str, Any]:
    """Measure the order reliance of any model on the videos of a data set.

    Videos whose label the model does not know count for the agreement only. The corrector sees the same frames as the
    model, prepared its own way.

    Args:
        checkpoint: any model, also `hf:` and `torchvision:`.
        data, dataset: see `marey.datasets.open_dataset`.
        split: only these videos; None takes all.
        corrector: see `order_reliance`.
        limit: measure on at most this many videos, evenly spaced over the data set.

    Returns:
        As `order_reliance`, and "unreadable".

    Raises:
        UserError: if there is no video, or the corrector takes another number of frames.
    """
    preprocess = preprocess_of(checkpoint)
    index = open_dataset(data, dataset=dataset)
    index = index.split(split) if split is not None else index
    if limit is not None and limit < len(index):
        index = subset(index, [int(place * len(index) / limit) for place in range(limit)])
    if corrector is not None:
        T, U = preprocess.sampling.num_frames, preprocess_of(corrector).sampling.num_frames
        if T != U:
            raise UserError(f"the model takes {T} frames and the corrector {U}; name a corrector of {T} frames")
        corrector.model.to(device).eval()
    numbers = {name: number for number, name in enumerate(checkpoint.class_names)}
    unreadable: list[str] = []
    pending: list[Tensor] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for frames, labels in frame_batches(index, preprocess, batch_size, unreadable):
            if corrector is not None:
                pending.append(centre_clips(preprocess_of(corrector), frames))
            wanted = torch.tensor([numbers.get(label or "", -1) for label in labels])
            yield centre_clips(preprocess, frames).to(device), wanted

    found = order_reliance(checkpoint.model.to(device).eval(), batches(), shuffles=shuffles, seed=seed,
                           corrector=corrector.model if corrector is not None else None,
                           corrector_clips=iter(lambda: pending.pop(0), None) if corrector is not None else None)
    return {**found, "unreadable": unreadable}


def centre_clips(preprocess: Preprocess, frames: list[Tensor]) -> Tensor:
    """Prepare sampled frames as the centre crop of evaluation: uint8 (T, C, H, W) each to float (B, T, C, S, S)."""
    centre = replace(preprocess, crops=1) if preprocess.crops != 1 else preprocess
    return torch.cat([centre.clip(clip)[:1] for clip in frames])


def frame_batches(index: DatasetIndex, preprocess: Preprocess, batch_size: int,
                  unreadable: list[str]) -> Iterator[tuple[list[Tensor], list[str | None]]]:
    """Yield the sampled frames and labels of the readable videos; messages of the others go to `unreadable`."""
    frames: list[Tensor] = []
    labels: list[str | None] = []
    for sample in index.samples:
        try:
            frames.append(read_frames(index, sample, preprocess))
        except VideoError as error:
            unreadable.append(str(error))
            continue
        labels.append(sample.label)
        if len(frames) == batch_size:
            yield frames, labels
            frames, labels = [], []
    if frames:
        yield frames, labels
