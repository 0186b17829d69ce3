"""The task "clips": one label per video, with the terms of order, label embedding and teacher."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from torch import nn

from marey.datasets.clips import ClipDataset, collate_clips
from marey.datasets.seen import describe_training, positions_seen
from marey.errors import UserError
from marey.losses.classification import soft_targets
from marey.training.config import TrainConfig
from marey.training.data import (
    augment_of,
    clip_arguments,
    draws_frames,
    open_splits,
    preprocess_of,
)
from marey.training.distributed import zero_gradient
from marey.training.feature_cache import store_clip_features
from marey.training.objective_config import ClassificationConfig
from marey.training.stages import Stage, build_stages
from marey.training.task import Batch, Objective, Outputs, Task, Terms, no_items
from marey.training.tasks.clip_evaluator import ClipsEvaluator
from marey.training.tasks.clip_terms import build_terms
from marey.training.terms.classification import mix_clips
from marey.training.terms.order import ORDER_TERMS, PermutedClips, split_outputs


def build(config: TrainConfig) -> Task:
    """Build the task for the videos of a configuration, with the terms that have a weight.

    Raises:
        UserError: if the data cannot teach a class (no videos, one class, validation labels never
            trained on), or a term does not fit the data.
    """
    train, val = open_splits(config.data, config.train.seed)
    preprocess = preprocess_of(config)
    labels = [train.label_index(sample) for sample in train.samples]
    parts = build_terms(
        config, train.class_names, labels, preprocess.sampling.num_frames, preprocess
    )
    objective = ClipsObjective(
        config.objective.weights,
        parts.terms,
        num_classes=len(train.class_names),
        classification=config.objective.classification,
        permuted_clips=parts.permuted_clips,
        stages=build_stages(config.objective),
    )
    return Task(
        train_data=ClipDataset(
            train,
            preprocess,
            augment_of(config, preprocess),
            seed=config.train.seed,
            draw=draws_frames(config.data, preprocess),
        ),
        val_data=ClipDataset(val, preprocess) if val is not None else None,
        objective=objective,
        make_evaluator=lambda: ClipsEvaluator(train.class_names, parts.measures),
        model_arguments=clip_arguments(preprocess)
        | {"num_classes": len(train.class_names)}
        | parts.model_arguments,
        class_names=train.class_names,
        preprocess=preprocess,
        collate=collate_clips,
        labels=labels,
        train_names=[train.relative_path(sample) for sample in train.samples],
        data_note=train.note,
        tensors=parts.tensors,
        store_features=functools.partial(store_clip_features, config),
        describe_training=functools.partial(describe_training, train),
        seen_in_training=no_items if val is None else functools.partial(positions_seen, val),
        extra={
            "data": {
                "train_hash": train.manifest_hash,
                "train_videos": len(train),
                "val_hash": val.manifest_hash if val is not None else None,
                "val_videos": len(val) if val is not None else 0,
            },
            **parts.extra,
        },
    )


class ClipsObjective(Objective):
    """The sum of the clip terms, from one forward pass.

    Truong et al., "DirecFormer", Eq. 1: log p(label | clip) + log p(permutation | permuted clip),
    maximised; here the terms "class" and "order", minimised.

    Args:
        weights, terms, stages: see `Objective`.
        num_classes: K.
        classification: label smoothing and mixing of the training clips.
        permuted_clips: makes the permuted clips of "order" and "guided"; None without these terms.
    """

    def __init__(
        self,
        weights: dict[str, float],
        terms: Mapping[str, nn.Module],
        *,
        num_classes: int,
        classification: ClassificationConfig | None = None,
        permuted_clips: PermutedClips | None = None,
        stages: Sequence[Stage] = (),
    ) -> None:
        super().__init__(weights, terms, stages)
        self.num_classes, self.permuted_clips = num_classes, permuted_clips
        self.classification = classification or ClassificationConfig()
        only_class = not {*ORDER_TERMS, "label"} & set(self.terms)
        if self.classification.mixes and not only_class:
            raise UserError(
                "objective.classification.mixup_alpha and cutmix_alpha must be 0 beside the terms "
                "order, guided and label: a mixed clip has no one order and no one label to mean"
            )

    def prepare(self, model: nn.Module, batch: Batch, names: Sequence[str]) -> Batch:
        """Add "targets" (B, K), mix the clips, and append permuted clips for the order terms."""
        smoothing = self.classification.label_smoothing if model.training else 0.0
        clip, targets = batch["clip"], soft_targets(batch["label"], self.num_classes, smoothing)
        if model.training:
            clip, targets = mix_clips(clip, targets, self.classification)
        batch = {**batch, "clip": clip, "targets": targets}

        if self.permuted_clips is None:
            return batch
        if not model.training:
            return self.permuted_clips.evaluation_batch(batch)
        # Drawn before the order terms start too, so that their start does not change what dropout
        # draws after it.
        index = self.permuted_clips.draw(batch)
        return (
            self.permuted_clips.training_batch(batch, index)
            if {*ORDER_TERMS} & set(names)
            else batch
        )

    def call_model(
        self, model: nn.Module, batch: Batch, names: Sequence[str], return_attention: bool
    ) -> Outputs:
        """Return the outputs for the clips, and below "permuted" those for the permuted clips."""
        is_permuted = "order" in batch
        if return_attention or "guided" in names or (is_permuted and not model.training):
            outputs = model(batch["clip"], return_attention=True)
        else:
            outputs = model(batch["clip"])
        if not is_permuted:
            return outputs
        outputs = split_outputs(outputs, len(batch["label"]))
        outputs["permuted"]["order"] = batch["order"]
        return outputs

    def losses(
        self, model: nn.Module, names: Sequence[str], batch: Batch, return_attention: bool = False
    ) -> tuple[Outputs, Terms]:
        """Return the outputs and the unweighted terms; every head gets a gradient."""
        outputs, terms = super().losses(model, names, batch, return_attention)
        if self.permuted_clips is not None and model.training and terms:
            permuted = outputs.get("permuted", {})
            heads = (
                permuted.get("logits"),
                outputs.get("order_logits"),
                permuted.get("order_logits"),
            )
            first = next(iter(terms))
            terms[first] = terms[first] + zero_gradient(*heads)
        return outputs, terms
