"""The task "poses": one label per window of keypoints, and beside it the terms of the task
"clips"."""

from __future__ import annotations

from functools import partial

from marey.datasets.clips import collate_clips
from marey.datasets.poses import PoseWindows
from marey.datasets.seen import describe_training, positions_seen
from marey.synthetic.poses.vocabulary import OTHER
from marey.training.config import TrainConfig
from marey.training.data import open_splits
from marey.training.stages import build_stages
from marey.training.task import Task, no_items
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clip_terms import build_terms
from marey.training.tasks.clips import ClipsObjective
from marey.transforms.keypoints import NUM_KEYPOINTS


def build(config: TrainConfig) -> Task:
    """Build the task for a packed folder of windows, with the terms that have a weight.

    Raises:
        UserError: if the folder holds no poses, cannot teach a class, or a term does not fit.
    """
    train, val = open_splits(config.data, config.train.seed)
    train_data = PoseWindows(train, config.data.pose_augment, seed=config.train.seed)
    sampling = train_data.sampling
    labels = [train.label_index(sample) for sample in train.samples]
    parts = build_terms(config, train.class_names, labels, sampling.num_frames)
    objective = ClipsObjective(
        config.objective.weights,
        parts.terms,
        num_classes=len(train.class_names),
        classification=config.objective.classification,
        permuted_clips=parts.permuted_clips,
        stages=build_stages(config.objective),
    )
    num_keypoints = train_data[0]["clip"].shape[1]
    return Task(
        train_data=train_data,
        val_data=PoseWindows(val) if val is not None else None,
        objective=objective,
        make_evaluator=lambda: ClipsEvaluator(train.class_names, parts.measures),
        model_arguments={
            "num_frames": sampling.num_frames,
            "num_persons": num_keypoints // NUM_KEYPOINTS,
            "num_classes": len(train.class_names),
            "stem": "pose",
            **parts.model_arguments,
        },
        class_names=train.class_names,
        preprocess=sampling,
        collate=collate_clips,
        labels=labels,
        train_names=[train.relative_path(sample) for sample in train.samples],
        tensors=parts.tensors,
        describe_training=partial(describe_training, train),
        seen_in_training=no_items if val is None else partial(positions_seen, val),
        extra={
            "other_class": OTHER if OTHER in train.class_names else None,
            "data": {
                "train_hash": train.manifest_hash,
                "train_windows": len(train),
                "val_hash": val.manifest_hash if val is not None else None,
                "val_windows": len(val) if val is not None else 0,
            },
            **parts.extra,
        },
    )
