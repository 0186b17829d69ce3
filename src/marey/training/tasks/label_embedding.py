"""Label embedding: beside the class (and the order), the meaning of the label's name (SeViTAR, section 3.2).

This is the joint training of both MLPs with the backbone. The paper's stages are three runs of the same task, each
started from the one before and frozen up to it; `marey.recipes.sevitar` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.labels.embed import DEFAULT_MODEL, embed_labels
from marey.losses.label_embedding import LabelEmbeddingLoss
from marey.training.config import TrainConfig
from marey.training.tasks import Batch, Evaluator, Objective, Outputs, Task, Terms

BASES = {"classification": "marey.training.tasks.classification", "order": "marey.training.tasks.order"}


@dataclass(frozen=True, kw_only=True)
class LabelArguments:
    """What `objective.arguments` may hold for the kind "label_embedding", beside what its base takes."""

    base: str = "classification"
    """The task it stands on: "classification", or "order" to learn class, order and label meaning together."""
    label_source: str = DEFAULT_MODEL
    """Where label embeddings come from, see `marey.labels.embed.embed_labels`."""
    label_loss: str = "mse"
    """"mse" (squared distance of unit vectors) or "cosine"."""


def build(config: TrainConfig) -> Task:
    """Build the task: that of its base, with the term "label" and the label embeddings in the checkpoint.

    Raises:
        UserError: if labels cannot be embedded, or clips are mixed (a mixed clip has no one label to mean).
    """
    mine, rest = split_arguments(config.objective.arguments)
    if config.objective.mixup_alpha or config.objective.cutmix_alpha:
        raise UserError("objective.mixup_alpha and cutmix_alpha must be 0 with label embeddings: a mixed clip has no "
                        "one label to mean")
    inner = build_base(config, mine.base, rest)
    labels = embed_labels(inner.class_names, mine.label_source)
    objective = LabelEmbeddingObjective(config.objective.weights, inner.objective,
                                        LabelEmbeddingLoss(labels.vectors, mine.label_loss))
    report = {"label_source": labels.source if mine.label_source != DEFAULT_MODEL else DEFAULT_MODEL,
              "label_loss": mine.label_loss, "unknown_words": list(labels.unknown_words),
              "same_meaning": [list(pair) for pair in labels.same_meaning()]}
    return replace(inner, objective=objective,
                   make_evaluator=lambda: LabelEmbeddingEvaluator(inner.make_evaluator(), labels.vectors),
                   model_arguments={**inner.model_arguments, "label_dim": labels.vectors.shape[1]},
                   extra={**inner.extra, **report}, tensors={**inner.tensors, "label_embeddings": labels.vectors})


def split_arguments(arguments: dict[str, Any]) -> tuple[LabelArguments, dict[str, Any]]:
    """Divide `objective.arguments` into ours and the base's."""
    own = {field.name for field in fields(LabelArguments)}
    return (LabelArguments(**{key: value for key, value in arguments.items() if key in own}),
            {key: value for key, value in arguments.items() if key not in own})


def build_base(config: TrainConfig, base: str, arguments: dict[str, Any]) -> Task:
    """Build the task below, without our arguments and our term."""
    if base not in BASES:
        raise unknown_name("objective.arguments.base", base, BASES)
    if base == "classification" and arguments:
        raise unknown_name("setting of objective.arguments", next(iter(arguments)),
                           [field.name for field in fields(LabelArguments)])
    import importlib

    weights = {name: weight for name, weight in config.objective.weights.items() if name != "label"}
    objective = replace(config.objective, kind=base, arguments=arguments, weights=weights)
    return importlib.import_module(BASES[base]).build(replace(config, objective=objective))


class LabelEmbeddingObjective(Objective):
    """The terms of the task below and "label", all from its one forward.

    Args:
        weights: factor of each term, "label" among them.
        base: the objective below; its outputs carry "label_embedding" for the clips of the batch, in order.
        loss: gives {"label": ...}.
    """

    def __init__(self, weights: dict[str, float], base: Objective, loss: LabelEmbeddingLoss) -> None:
        super().__init__(weights)
        self.base = base
        self.loss = loss

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the outputs for the clips of the batch and all terms."""
        self.base.step, self.base.total_steps = self.step, self.total_steps
        outputs, terms = self.base(model, batch)
        if outputs.get("label_embedding") is None:
            raise UserError("the model has no label-embedding head; set model.name=sevitar")
        return outputs, {**terms, **self.loss(outputs, batch["label"])}


class LabelEmbeddingEvaluator(Evaluator):
    """The metrics of the task below, and "label_top1": how often the nearest label embedding is the right one."""

    def __init__(self, base: Evaluator, vectors: Tensor) -> None:
        super().__init__()
        self.base, self.vectors = base, vectors
        self.main, self.higher_is_better = base.main, base.higher_is_better

    def row_of(self, outputs: Outputs, batch: Batch, place: int) -> dict[str, Any]:
        """Keep what the base keeps, and the predicted label embedding."""
        return self.base.row_of(outputs, batch, place) | {
            "label_embedding": outputs["label_embedding"][place].float().cpu()}

    def compute(self) -> dict[str, Any]:
        """Return the metrics as shares, 0..1."""
        self.base.rows = self.rows
        metrics = self.base.compute()
        predicted = torch.stack([row["label_embedding"] for row in self.rows.values()])
        labels = torch.tensor([row["label"] for row in self.rows.values()])
        nearest = (F.normalize(predicted, dim=-1) @ self.vectors.T).argmax(-1)
        return metrics | {"label_top1": float((nearest == labels).float().mean())}
