"""The terms of the task "clips" by their weights, and what each of them brings along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from marey.errors import UserError
from marey.losses.classification import balanced_class_weights
from marey.metrics.order import chance_order_accuracy
from marey.training.config import TrainConfig
from marey.training.objective_config import ObjectiveConfig
from marey.training.task import check_terms
from marey.training.tasks.clip_evaluator import Measure
from marey.training.terms.classification import ClassTerm
from marey.training.terms.distillation import build_teacher_term
from marey.training.terms.label_embedding import LabelMeasure, LabelTerm, embed_classes
from marey.training.terms.order import (
    ORDER_TERMS,
    GuidedTerm,
    OrderMeasure,
    OrderTerm,
    PermutedClips,
    permutation_set,
)
from marey.transforms.preprocess import Preprocess

CLIP_TERMS = ("class", *ORDER_TERMS, "label", "teacher")
"""The terms of this task, in the order of the sum."""


@dataclass(kw_only=True)
class ClipTerms:
    """What the terms of a configuration bring along: modules, measures, and entries of the task."""

    terms: dict[str, nn.Module] = field(default_factory=dict)
    permuted_clips: PermutedClips | None = None
    measures: list[Measure] = field(default_factory=list)
    model_arguments: dict[str, Any] = field(default_factory=lambda: {"num_orders": 0})
    """An order head without an order term would never learn, and stall DDP."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def build_terms(
    config: TrainConfig,
    class_names: tuple[str, ...],
    labels: Sequence[int],
    num_frames: int,
    preprocess: Preprocess | None = None,
) -> ClipTerms:
    """Build the terms that have a weight, in the order of `CLIP_TERMS`.

    Args:
        labels: class of every training sample.
        num_frames: T, frames of a clip.
        preprocess: of clips of pixels, which a teacher needs.

    Raises:
        UserError: if a term is unknown or does not fit the data.
    """
    settings, parts = config.objective, ClipTerms()
    check_terms(settings.weights, CLIP_TERMS)
    if "class" in settings.weights:
        is_balanced = settings.classification.class_weights == "balanced"
        parts.terms["class"] = ClassTerm(
            balanced_class_weights(labels, len(class_names)) if is_balanced else None
        )
    if {*ORDER_TERMS} & set(settings.weights):
        add_order(parts, settings, class_names, num_frames)
    if "label" in settings.weights:
        add_label(parts, settings, class_names, config.data.unseen_classes)
    if "teacher" in settings.weights:
        if preprocess is None:
            raise UserError("term 'teacher' takes clips of pixels; leave it out of the task poses")
        parts.terms["teacher"] = build_teacher_term(settings.teacher, class_names, preprocess)
        parts.extra["teacher"] = settings.teacher.checkpoint
    return parts


def add_order(
    parts: ClipTerms, settings: ObjectiveConfig, class_names: tuple[str, ...], num_frames: int
) -> None:
    """Add the terms "order" and "guided", the permutations, the size of the head and OrderAcc."""
    rows = permutation_set(settings.order, num_frames)
    parts.permuted_clips = PermutedClips(rows, class_names, settings.order.backwards)
    if "order" in settings.weights:
        parts.terms["order"] = OrderTerm()
    if "guided" in settings.weights:
        order = settings.order
        parts.terms["guided"] = GuidedTerm(order.signs, order.mask_diagonal, order.guided_target)
    parts.measures.append(OrderMeasure())
    parts.model_arguments["num_orders"] = len(rows)
    parts.tensors["permutations"] = rows
    parts.extra["chance_order_accuracy"] = chance_order_accuracy(num_frames)


def add_label(
    parts: ClipTerms, settings: ObjectiveConfig, class_names: tuple[str, ...], unseen: Sequence[str]
) -> None:
    """Add the term "label", the label embeddings, the width of the head and label accuracy."""
    labels, unseen_vectors, report = embed_classes(class_names, unseen, settings.label.source)
    parts.terms["label"] = LabelTerm(labels.vectors, settings.label.loss)
    parts.measures.append(LabelMeasure(labels.vectors))
    parts.model_arguments["label_dim"] = labels.vectors.shape[1]
    parts.tensors["label_embeddings"] = labels.vectors
    if unseen_vectors is not None:
        parts.tensors["unseen_embeddings"] = unseen_vectors
    training = "joint" if settings.label.stage_shares is None else "staged"
    parts.extra |= {**report, "label_loss": settings.label.loss, "label_training": training}
