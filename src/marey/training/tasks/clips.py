"""The task "clips": one label per video, and beside it the order of its frames, its label's meaning, a teacher."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from marey.checkpoints.load import load_checkpoint
from marey.datasets.clips import ClipDataset, collate_clips
from marey.datasets.index import DatasetIndex, subset
from marey.datasets.open import open_dataset
from marey.datasets.split import check_classes, hold_out, labelled, limited, without_classes
from marey.errors import UserError
from marey.losses.classification import balanced_class_weights, soft_targets
from marey.metrics.accuracy import confusion_matrix, mean_class_accuracy, topk_accuracy
from marey.metrics.order import chance_order_accuracy
from marey.training.config import TrainConfig
from marey.training.data_config import DataConfig
from marey.training.distributed import zero_gradient
from marey.training.feature_cache import store_clip_features
from marey.training.objective_config import ClassificationConfig, ObjectiveConfig
from marey.training.stages import Stage, build_stages
from marey.training.task import Batch, Evaluator, Objective, Outputs, Task, Terms, check_terms
from marey.training.terms.classification import ClassTerm, mix_clips
from marey.training.terms.distillation import build_teacher_term
from marey.training.terms.label_embedding import LabelMeasure, LabelTerm, embed_classes
from marey.training.terms.order import (
    ORDER_TERMS,
    GuidedTerm,
    OrderMeasure,
    OrderTerm,
    PermutedClips,
    permutation_set,
    split_outputs,
)
from marey.transforms.preprocess import Preprocess

CLIP_TERMS = ("class", *ORDER_TERMS, "label", "teacher")
"""The terms of this task, in the order of the sum."""


def build(config: TrainConfig) -> Task:
    """Build the task for the videos of a configuration, with the terms that have a weight.

    Raises:
        UserError: if the data cannot teach a class (no videos, one class, validation labels never trained on), or a
            term does not fit the data.
    """
    train, val = open_splits(config.data, config.train.seed)
    preprocess = preprocess_of(config)
    labels = [train.label_index(sample) for sample in train.samples]
    parts = build_terms(config, train.class_names, labels, preprocess)
    objective = ClipsObjective(config.objective.weights, parts.terms, num_classes=len(train.class_names),
                               classification=config.objective.classification, permuted_clips=parts.permuted_clips,
                               stages=build_stages(config.objective))
    return Task(train_data=ClipDataset(train, preprocess, augment_of(config, preprocess), seed=config.train.seed),
                val_data=ClipDataset(val, preprocess) if val is not None else None,
                objective=objective, make_evaluator=lambda: ClipsEvaluator(train.class_names, parts.measures),
                model_arguments=clip_arguments(preprocess) | {"num_classes": len(train.class_names)}
                | parts.model_arguments,
                class_names=train.class_names, preprocess=preprocess, collate=collate_clips, labels=labels,
                train_names=[train.relative_path(sample) for sample in train.samples], tensors=parts.tensors,
                store_features=functools.partial(store_clip_features, config),
                extra={"data": {"train_hash": train.manifest_hash, "train_videos": len(train),
                                "val_hash": val.manifest_hash if val is not None else None,
                                "val_videos": len(val) if val is not None else 0}, **parts.extra})


class ClipsObjective(Objective):
    """The sum of the clip terms, from one forward pass.

    Truong et al., "DirecFormer", Eq. 1: log p(label | clip) + log p(permutation | permuted clip), maximised; here the
    terms "class" and "order", minimised.

    Args:
        weights, terms, stages: see `Objective`.
        num_classes: K.
        classification: label smoothing and mixing of the training clips.
        permuted_clips: makes the permuted clips of "order" and "guided"; None without these terms.
    """

    def __init__(self, weights: dict[str, float], terms: Mapping[str, nn.Module], *, num_classes: int,
                 classification: ClassificationConfig | None = None, permuted_clips: PermutedClips | None = None,
                 stages: Sequence[Stage] = ()) -> None:
        super().__init__(weights, terms, stages)
        self.num_classes, self.permuted_clips = num_classes, permuted_clips
        self.classification = classification or ClassificationConfig()
        only_class = not {*ORDER_TERMS, "label"} & set(self.terms)
        if self.classification.mixes and not only_class:
            raise UserError("objective.classification.mixup_alpha and cutmix_alpha must be 0 beside the terms order, "
                            "guided and label: a mixed clip has no one order and no one label to mean")

    def prepare(self, model: nn.Module, batch: Batch, names: Sequence[str]) -> Batch:
        """Add "targets" (B, K), mix the clips, and put permuted clips behind them where the order terms need them."""
        smoothing = self.classification.label_smoothing if model.training else 0.0
        clip, targets = batch["clip"], soft_targets(batch["label"], self.num_classes, smoothing)
        if model.training:
            clip, targets = mix_clips(clip, targets, self.classification)
        batch = {**batch, "clip": clip, "targets": targets}

        if self.permuted_clips is None:
            return batch
        if not model.training:
            return self.permuted_clips.evaluation_batch(batch)
        # Drawn before the order terms start too, so that their start does not change what dropout draws after it.
        index = self.permuted_clips.draw(batch)
        return self.permuted_clips.training_batch(batch, index) if {*ORDER_TERMS} & set(names) else batch

    def answer(self, model: nn.Module, batch: Batch, names: Sequence[str], return_attention: bool) -> Outputs:
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

    def losses(self, model: nn.Module, names: Sequence[str], batch: Batch,
               return_attention: bool = False) -> tuple[Outputs, Terms]:
        """Return the outputs and the unweighted terms; with an order head, every head takes part in the graph."""
        outputs, terms = super().losses(model, names, batch, return_attention)
        if self.permuted_clips is not None and model.training and terms:
            permuted = outputs.get("permuted", {})
            heads = (permuted.get("logits"), outputs.get("order_logits"), permuted.get("order_logits"))
            first = next(iter(terms))
            terms[first] = terms[first] + zero_gradient(*heads)
        return outputs, terms


@dataclass(kw_only=True)
class Parts:
    """What the terms of a configuration bring along: modules, measures, and entries of the task."""

    terms: dict[str, nn.Module] = field(default_factory=dict)
    permuted_clips: PermutedClips | None = None
    measures: list[Measure] = field(default_factory=list)
    model_arguments: dict[str, Any] = field(default_factory=lambda: {"num_orders": 0})
    """An order head without an order term would never learn, and stall DDP."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def build_terms(config: TrainConfig, class_names: tuple[str, ...], labels: Sequence[int],
                preprocess: Preprocess) -> Parts:
    """Build the terms that have a weight, in the order of `CLIP_TERMS`.

    Args:
        labels: class of every training sample.

    Raises:
        UserError: if a term is unknown or does not fit the data.
    """
    settings, parts = config.objective, Parts()
    check_terms(settings.weights, CLIP_TERMS)
    if "class" in settings.weights:
        is_balanced = settings.classification.class_weights == "balanced"
        parts.terms["class"] = ClassTerm(balanced_class_weights(labels, len(class_names)) if is_balanced else None)
    if {*ORDER_TERMS} & set(settings.weights):
        add_order(parts, settings, class_names, preprocess.sampling.num_frames)
    if "label" in settings.weights:
        add_label(parts, settings, class_names, config.data.unseen_classes)
    if "teacher" in settings.weights:
        parts.terms["teacher"] = build_teacher_term(settings.teacher, class_names, preprocess)
        parts.extra["teacher"] = settings.teacher.checkpoint
    return parts


def add_order(parts: Parts, settings: ObjectiveConfig, class_names: tuple[str, ...], num_frames: int) -> None:
    """Add the terms "order" and "guided" and what they need: permutations, the head's size, OrderAcc."""
    rows = permutation_set(settings.order, num_frames)
    parts.permuted_clips = PermutedClips(rows, class_names, settings.order.backwards)
    if "order" in settings.weights:
        parts.terms["order"] = OrderTerm()
    if "guided" in settings.weights:
        parts.terms["guided"] = GuidedTerm(settings.order.signs, settings.order.mask_diagonal)
    parts.measures.append(OrderMeasure())
    parts.model_arguments["num_orders"] = len(rows)
    parts.tensors["permutations"] = rows
    parts.extra["chance_order_accuracy"] = chance_order_accuracy(num_frames)


def add_label(parts: Parts, settings: ObjectiveConfig, class_names: tuple[str, ...], unseen: Sequence[str]) -> None:
    """Add the term "label" and what it needs: label embeddings, the head's width, the nearest label."""
    labels, unseen_vectors, report = embed_classes(class_names, unseen, settings.label.source)
    parts.terms["label"] = LabelTerm(labels.vectors, settings.label.loss)
    parts.measures.append(LabelMeasure(labels.vectors))
    parts.model_arguments["label_dim"] = labels.vectors.shape[1]
    parts.tensors["label_embeddings"] = labels.vectors
    if unseen_vectors is not None:
        parts.tensors["unseen_embeddings"] = unseen_vectors
    training = "joint" if settings.label.stage_shares is None else "staged"
    parts.extra |= {**report, "label_loss": settings.label.loss, "label_training": training}


class Measure(Protocol):
    """Something measured beside the accuracy."""

    def row_of(self, outputs: Outputs, position: int) -> dict[str, Any]:
        """Return what is kept of the sample at a position of the batch."""

    def compute(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the metrics of all rows."""


class ClipsEvaluator(Evaluator):
    """Top-1, top-5, mean class accuracy and cross-entropy, and what the measures of the terms add.

    Args:
        class_names: in label order.
        measures: of the other terms.
    """

    main = "top1"

    def __init__(self, class_names: tuple[str, ...], measures: Sequence[Measure] = ()) -> None:
        super().__init__()
        self.class_names, self.measures = class_names, tuple(measures)

    def row_of(self, outputs: Outputs, batch: Batch, position: int) -> dict[str, Any]:
        """Keep logits and label, and what the measures keep."""
        row = {"logits": outputs["logits"][position].float().cpu(), "label": int(batch["label"][position])}
        for measure in self.measures:
            row |= measure.row_of(outputs, position)
        return row

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares in [0, 1].

        Raises:
            UserError: if no video could be read.
        """
        if not self.rows:
            raise UserError("no validation video could be read; list the reasons with 'marey data check'")
        rows = list(self.rows.values())
        logits = torch.stack([row["logits"] for row in rows])
        labels = torch.tensor([row["label"] for row in rows])
        confusion = confusion_matrix(logits.argmax(1), labels, len(self.class_names))
        metrics = {"top1": topk_accuracy(logits, labels, 1), "top5": topk_accuracy(logits, labels, 5),
                   "mean_class_accuracy": mean_class_accuracy(confusion),
                   "loss": nn.functional.cross_entropy(logits.double(), labels).item(), "videos": len(labels)}
        for measure in self.measures:
            metrics |= measure.compute(rows)
        return metrics


# ---- data, shared by the tasks that learn from clips ----------------------------------------------------------------

def open_splits(config: DataConfig, seed: int) -> tuple[DatasetIndex, DatasetIndex | None]:
    """Open the training and validation videos of a configuration.

    Validation is the split "val" where there is one, else whole groups held out of "train", class by class; the split
    "test" is never touched. Data without splits is all training data.

    Raises:
        UserError: if there is no data, a single class, a sample without label, or a validation label absent from
            training.
    """
    if config.path is None:
        raise UserError("no data: give --data a folder of class folders or a manifest.csv (or set data.path)")
    index = open_dataset(config.path, dataset=config.dataset, split_by=config.split_by)
    index = without_classes(index, config.unseen_classes)
    train = labelled(index.split("train") if index.splits else index)
    val = labelled(index.split("val")) if "val" in index.splits else None
    if val is None and config.val_fraction > 0:
        train, val = hold_out(train, config.val_fraction, seed)
    if config.limit is not None and config.limit < len(train):
        train = subset(train, limited(train, config.limit, seed))
    check_classes(train, val)
    untaught = [name for name, count in train.class_counts.items() if not count]
    if untaught:
        warnings.warn(f"{train.root}: classes without a training video, which the model cannot learn: "
                      + ", ".join(untaught), stacklevel=2)
    return train, val


def preprocess_of(config: TrainConfig) -> Preprocess:
    """Return the run's preprocessing: that of the configuration, else that of the checkpoint it starts from.

    Raises:
        UserError: if neither says.
    """
    if config.data.preprocess is not None:
        return config.data.preprocess
    if config.model.init_from is None:
        raise UserError("no preprocessing: set data.preprocess.image_size and the like, or model.init_from")
    found = load_checkpoint(config.model.init_from).preprocess
    if found is None:
        raise UserError(f"{config.model.init_from}: has no preprocessing; set data.preprocess.image_size and the like")
    return found


def augment_of(config: TrainConfig, preprocess: Preprocess) -> Any:
    """Return the run's augmentation, made to end in the run's preprocessing."""
    return None if config.augment is None else replace(config.augment, preprocess=preprocess)


def clip_arguments(preprocess: Preprocess) -> dict[str, Any]:
    """Return the model arguments that follow from the preprocessing."""
    return {"num_frames": preprocess.sampling.num_frames, "image_size": preprocess.image_size}
