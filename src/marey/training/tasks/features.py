"""Several labels per video, from features by second: GAT on YouTube-8M and on features of one's own videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from marey.datasets.tfrecord import OnCorrupt
from marey.datasets.youtube8m_loading import IndexedExamples, StreamedExamples, collate_features
from marey.datasets.youtube8m_shards import FeatureSet, open_feature_set
from marey.errors import UserError, unknown_name
from marey.losses.multilabel import MultilabelLoss
from marey.metrics.youtube8m import YouTube8MEvaluator
from marey.training.config import TrainConfig
from marey.training.task import Batch, Evaluator, Objective, Outputs, Task, Terms


@dataclass(frozen=True, kw_only=True)
class FeatureData:
    """What `data.arguments` may hold for the kind "features"."""

    features: dict[str, int] | None = None
    """Feature name -> width, to read some of what the records hold; None reads what their description names."""
    level: Literal["frame", "video"] = "frame"
    """Frame-level or video-level records."""
    vocabulary: str | None = None
    """Vocabulary CSV; None looks beside the data."""
    hierarchy: str | None = None
    """CSV that maps labels to a hierarchical label space; None looks beside the data."""
    max_frames: int = 300
    """Later seconds are dropped."""
    max_val_videos: int | None = None
    """Validate on the first so many videos (the paper: 64,000)."""
    stream: bool = False
    """Read training shards in order with a shuffle buffer, for data too large to be read at random."""
    shuffle_buffer: int = 2048
    """Records of that buffer."""
    on_corrupt: OnCorrupt = "raise"
    """Refuse damaged records, or skip them."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureData:
        """Build from `data.arguments`; an unknown name is an error."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("setting of data.arguments", name, known)
        return cls(**values)


def build(config: TrainConfig) -> Task:
    """Build the task for a folder of shards (train*, validate*) or a single TFRecord file.

    Where no shard is called "validate...", `data.val_fraction` of the training videos are held out by `train.seed`.

    Raises:
        UserError: if there are no records, or they are not as described.
    """
    if config.data.path is None:
        raise UserError("no data: give --data a folder of YouTube-8M shards or a .tfrecord file "
                        "(marey data render youtube8m-mini makes one, marey features DIR another)")
    settings = FeatureData.from_dict(config.data.arguments)
    loss = MultilabelLoss(**{"over_classes": "mean", **config.objective.arguments})
    data = open_feature_set(config.data.path, features=settings.features, vocabulary=settings.vocabulary,
                            hierarchy=settings.hierarchy)
    train, val = open_records(data, settings, config)
    space = data.space
    return Task(train_data=train, val_data=val, objective=FeatureObjective(config.objective.weights, loss),
                make_evaluator=lambda: FeatureEvaluator(len(space.class_names)),
                model_arguments={"num_classes": len(space.class_names), "features": data.features,
                                 "max_frames": settings.max_frames},
                class_names=space.class_names, collate=collate_videos, describes_clips=False,
                extra={"features": data.features, "encoders": data.encoders,
                       "data": {"train_videos": len(train), "val_videos": len(val) if val is not None else 0}})


def open_records(data: FeatureSet, settings: FeatureData, config: TrainConfig) -> tuple[Any, Any]:
    """Return training and validation data of a feature set."""
    options: dict[str, Any] = {"features": data.features, "level": settings.level, "max_frames": settings.max_frames,
                               "on_corrupt": settings.on_corrupt}
    train_shards, val_shards = data.shards("train", ""), data.shards("validate", "val", "train", "")
    if settings.stream:
        train = StreamedTraining(StreamedExamples(train_shards, data.space, shuffle_buffer=settings.shuffle_buffer,
                                                  seed=config.train.seed, **options), config.train.workers)
        if val_shards == train_shards:
            raise UserError(f"{data.root}: data.arguments.stream needs validation shards of their own "
                            "(validate*.tfrecord)")
        return train, first_videos(IndexedExamples(val_shards, data.space, **options), settings.max_val_videos)
    whole = IndexedExamples(train_shards, data.space, **options)
    if not len(whole):
        raise UserError(f"{data.root}: no training record could be read")
    if val_shards != train_shards:
        return (Keyed(whole, range(len(whole))),
                first_videos(IndexedExamples(val_shards, data.space, **options), settings.max_val_videos))
    held_out = round(len(whole) * config.data.val_fraction)
    order = np.random.default_rng(config.train.seed).permutation(len(whole)).tolist()
    train_places, val_places = sorted(order[held_out:]), sorted(order[:held_out])
    return Keyed(whole, train_places), Keyed(whole, val_places) if val_places else None


class Keyed(Subset):
    """Some records of a data set, asked for as (epoch, i); an item's "sample" is i."""

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


def collate_videos(samples: Sequence[dict[str, Any]]) -> Batch:
    """Pad and stack videos; see `collate_features`."""
    return {**collate_features(samples), "sample": torch.tensor([sample["sample"] for sample in samples])}


class StreamedTraining:
    """Endless batches from streamed shards, for the training loop; starts at any part number, epochs included."""

    def __init__(self, data: StreamedExamples, workers: int) -> None:
        """Read through a loader with so many workers."""
        self.data, self.workers = data, workers

    def __len__(self) -> int:
        """Number of records of an epoch, over all ranks."""
        return self.data.num_records()

    def batches(self, first_part: int, part_size: int, rank: int, world: int) -> Iterator[Batch]:
        """Give collated batches from number `first_part` of this rank on; the last of an epoch may be smaller."""
        data, epoch, done = self.data, 0, first_part
        data.rank, data.num_ranks = rank, world
        while True:
            data.set_epoch(epoch)
            size = data.num_batches(part_size, self.workers)
            if size == 0:
                raise UserError(f"rank {rank} of {world} has no record of the {len(self)} in these shards; use fewer "
                                "processes")
            if done < size:
                data.set_epoch(epoch, batches_done=done, batch_size=part_size)
                yield from DataLoader(data, batch_size=part_size, num_workers=self.workers, collate_fn=collate_videos)
            epoch, done = epoch + 1, max(done - size, 0)


class FeatureObjective(Objective):
    """Binary cross-entropy of the class logits."""

    def __init__(self, weights: dict[str, float], loss: MultilabelLoss) -> None:
        """Keep the loss."""
        super().__init__(weights)
        self.loss = loss

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the model's outputs and {"class": loss}.

        Raises:
            UserError: if a feature of a real second is not a finite number; the video is named.
        """
        for name, features in batch["features"].items():
            bad = ~torch.isfinite(features.detach()).all(-1) & batch["mask"]
            if bool(bad.any()):
                video = int(bad.any(1).nonzero()[0])
                raise UserError(f"video '{batch['ids'][video]}': feature '{name}' holds a value that is not a finite "
                                "number; make the features again")
        outputs = model(batch["features"], batch["mask"])
        return outputs, self.loss(outputs, batch["targets"])


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
        return {"gap": found["gap"], "map": found["map"], "perr": found["perr"], "hit_at_1": found["hit_at_1"],
                "videos": int(found["num_videos"])}
