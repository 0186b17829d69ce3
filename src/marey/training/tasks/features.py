"""The task "features": several labels per video, from its features by second (GAT)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from marey.datasets.seen import HASHES, describe_records, records_seen
from marey.datasets.youtube8m_loading import IndexedExamples, StreamedExamples, collate_features
from marey.datasets.youtube8m_shards import FeatureSet, open_feature_set
from marey.errors import UserError
from marey.metrics.youtube8m import YouTube8MEvaluator
from marey.training.config import TrainConfig
from marey.training.data_config import FeaturesData
from marey.training.stages import build_stages
from marey.training.task import Batch, Evaluator, Objective, Outputs, Task, check_terms
from marey.training.terms.classification import MultilabelTerm


def build(config: TrainConfig) -> Task:
    """Build the task for a folder of shards (train*, validate*) or a single TFRecord file.

    Where no shard is called "validate...", `data.val_fraction` of the training videos are held out
    by `train.seed`.

    Raises:
        UserError: if there are no records, or they are not as described.
    """
    if config.data.path is None:
        raise UserError(
            "no data: give --data a folder of YouTube-8M shards or a .tfrecord file "
            "(marey data render youtube8m-mini makes one, marey features DIR another)"
        )
    settings = config.data.features
    check_terms(config.objective.weights, ("class",))
    terms = {"class": MultilabelTerm(config.objective.classification.over_classes)}
    data = open_feature_set(
        config.data.path,
        features=settings.widths,
        vocabulary=settings.vocabulary,
        hierarchy=settings.hierarchy,
    )
    train, val = open_records(data, settings, config)
    space = data.space
    return Task(
        train_data=train,
        val_data=val,
        objective=FeatureObjective(config.objective.weights, terms, build_stages(config.objective)),
        make_evaluator=lambda: FeatureEvaluator(len(space.class_names)),
        model_arguments={
            "num_classes": len(space.class_names),
            "features": data.features,
            "max_frames": settings.max_frames,
        },
        class_names=space.class_names,
        collate=collate_videos,
        describes_clips=False,
        describe_training=functools.partial(describe, train),
        seen_in_training=functools.partial(seen, val),
        extra={
            "features": data.features,
            "encoders": data.encoders,
            "data": {"train_videos": len(train), "val_videos": len(val) if val is not None else 0},
        },
    )


def open_records(data: FeatureSet, settings: FeaturesData, config: TrainConfig) -> tuple[Any, Any]:
    """Return training and validation data of a feature set."""
    options: dict[str, Any] = {
        "features": data.features,
        "level": settings.level,
        "max_frames": settings.max_frames,
        "on_corrupt": settings.on_corrupt,
    }
    train_shards, val_shards = data.shards("train", ""), data.shards("validate", "val", "train", "")
    separate = val_shards != train_shards
    held_out = IndexedExamples(val_shards, data.space, **options) if separate else None
    if held_out is not None:
        check_labelled(held_out, data.root)
    if settings.stream:
        train = StreamedTraining(
            StreamedExamples(
                train_shards,
                data.space,
                shuffle_buffer=settings.shuffle_buffer,
                seed=config.train.seed,
                **options,
            ),
            config.train.workers,
        )
        if held_out is None:
            raise UserError(
                f"{data.root}: data.features.stream needs validation shards of their own "
                "(validate*.tfrecord)"
            )
        return train, first_videos(held_out, settings.max_val_videos)
    whole = IndexedExamples(train_shards, data.space, **options)
    if not len(whole):
        raise UserError(f"{data.root}: no training record could be read")
    if held_out is not None:
        return (
            Keyed(whole, range(len(whole))),
            first_videos(held_out, settings.max_val_videos),
        )
    num_val = round(len(whole) * config.data.val_fraction)
    order = np.random.default_rng(config.train.seed).permutation(len(whole)).tolist()
    train_places, val_places = sorted(order[num_val:]), sorted(order[:num_val])
    return Keyed(whole, train_places), Keyed(whole, val_places) if val_places else None


MAX_HASHED = 5000
"""Records of a larger training set are not known again: every one would be read once more."""


def describe(train: Any) -> dict[str, Tensor]:
    """Return the tensor by which the training records are known again; empty for streams and for
    more than `MAX_HASHED` records."""
    if not isinstance(train, Keyed) or len(train) > MAX_HASHED:
        return {}
    return describe_records(train[position]["features"] for position in range(len(train)))


def seen(val: Any, tensors: Mapping[str, Tensor]) -> frozenset[int]:
    """Return the positions of the validation records that such a tensor knows."""
    if val is None or HASHES not in tensors:
        return frozenset()
    return records_seen((val[position]["features"] for position in range(len(val))), tensors)


class Keyed(Subset):
    """Some records of a data set, asked for as (epoch, i); an item's "sample" is i."""

    @property
    def skipped(self) -> list[str]:
        """One line for each damaged record that was left out."""
        return self.dataset.report.skipped

    def __getitem__(self, key: Any) -> dict[str, Any]:
        """Return record i."""
        index = key[1] if isinstance(key, tuple) else key
        return {**self.dataset[self.indices[index]], "sample": index}

    def __getitems__(self, keys: list[Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return several records (how a DataLoader asks)."""
        return [self[key] for key in keys]


def first_videos(data: IndexedExamples, count: int | None) -> Keyed:
    """Return the first `count` records, all where it is None."""
    return Keyed(data, range(len(data) if count is None else min(count, len(data))))


LABELS_LOOKED_AT = 200
"""Records that are read to tell a partition with labels from one without."""


def check_labelled(data: IndexedExamples, place: str) -> None:
    """Refuse a partition without labels, such as the official test partition of YouTube-8M.

    Raises:
        UserError: if none of the first `LABELS_LOOKED_AT` records has a label.
    """
    count = min(len(data), LABELS_LOOKED_AT)
    if count and not any(bool(data[i]["targets"].any()) for i in range(count)):
        raise UserError(
            f"{place}: none of the first {count} videos of {data.locations[0].path} has a label of "
            "the vocabulary, so nothing can be scored; the official test shards are unlabelled: "
            "test on a part of the validate shards"
        )


def collate_videos(samples: Sequence[dict[str, Any]]) -> Batch:
    """Pad and stack videos; see `collate_features`."""
    return {
        **collate_features(samples),
        "sample": torch.tensor([sample["sample"] for sample in samples]),
    }


class StreamedTraining:
    """Endless batches from streamed shards, from any part number on."""

    def __init__(self, data: StreamedExamples, workers: int) -> None:
        """Read through a loader with so many workers."""
        self.data, self.workers = data, workers

    def __len__(self) -> int:
        """Number of records of an epoch, over all ranks."""
        return self.data.num_records()

    def batches(self, first_part: int, part_size: int, rank: int, world: int) -> Iterator[Batch]:
        """Give the batches of this rank from `first_part` on; an epoch's last may be smaller."""
        data, epoch, done = self.data, 0, first_part
        data.rank, data.num_ranks = rank, world
        while True:
            data.set_epoch(epoch)
            size = data.num_batches(part_size, self.workers)
            if size == 0:
                raise UserError(
                    f"rank {rank} of {world} has no record of the {len(self)} in these shards; use "
                    "fewer processes"
                )
            if done < size:
                data.set_epoch(epoch, batches_done=done, batch_size=part_size)
                yield from DataLoader(
                    data, batch_size=part_size, num_workers=self.workers, collate_fn=collate_videos
                )
            epoch, done = epoch + 1, max(done - size, 0)


class FeatureObjective(Objective):
    """The sum of the terms of videos given as features by second: "class"."""

    def prepare(self, model: nn.Module, batch: Batch, names: Sequence[str]) -> Batch:
        """Refuse features that are no finite numbers.

        Raises:
            UserError: if a feature of a real second is not a finite number; the video is named.
        """
        for name, features in batch["features"].items():
            bad = ~torch.isfinite(features.detach()).all(-1) & batch["mask"]
            if bool(bad.any()):
                video = int(bad.any(1).nonzero()[0])
                raise UserError(
                    f"video '{batch['ids'][video]}': feature '{name}' holds a value that is not a "
                    "finite number; make the features again"
                )
        return batch

    def call_model(
        self, model: nn.Module, batch: Batch, names: Sequence[str], return_attention: bool
    ) -> Outputs:
        """Call the model on features and mask."""
        options = {"return_attention": True} if return_attention else {}
        return model(batch["features"], batch["mask"], **options)


class FeatureEvaluator(Evaluator):
    """GAP, MAP, PERR and Hit@1 from the 20 best classes of every video."""

    main = "gap"

    def __init__(self, num_classes: int) -> None:
        """Start empty."""
        super().__init__()
        self.scores = YouTube8MEvaluator(num_classes)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in one batch; probabilities are float64, so that large logits do not become ties."""
        probabilities = outputs["logits"].detach().cpu().double().sigmoid().numpy()
        self.scores.update(probabilities, batch["targets"].cpu().numpy())

    def state(self) -> Any:
        """Return the arrays gathered here; None before the first batch."""
        return self.scores.state() if self.scores.num_videos else None

    def merge(self, states: Sequence[Any]) -> None:
        """Replace what was gathered by that of all processes."""
        fresh = YouTube8MEvaluator(self.scores.num_classes)
        self.scores = fresh.merge([state for state in states if state is not None])

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares, 0..1."""
        found = self.scores.compute()
        return {
            "gap": found["gap"],
            "map": found["map"],
            "perr": found["perr"],
            "hit_at_1": found["hit_at_1"],
            "videos": int(found["num_videos"]),
        }
