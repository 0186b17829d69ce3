"""Label embedding: beside the class (and the order), the meaning of the label's name (SeViTAR, section 3.2).

Two orders of training reach the same checkpoint: `training="joint"` learns everything at once; `training="staged"` is
the paper's order, one part after the other within one run (backbone, then semantic MLP, then classifier).
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
from marey.training.task import Batch, Evaluator, Objective, Outputs, Task, Terms
from marey.training.terms.order import OrderLater

BASES = {"classification": "marey.training.tasks.clips", "order": "marey.training.terms.order"}


@dataclass(frozen=True, kw_only=True)
class LabelArguments:
    """What `objective.arguments` may hold for the kind "label_embedding", beside what its base takes."""

    base: str = "classification"
    """The task it stands on: "classification", or "order" to learn class, order and label meaning together."""
    label_source: str = DEFAULT_MODEL
    """Where label embeddings come from, see `marey.labels.embed.embed_labels`."""
    label_loss: str = "mse"
    """"mse" (squared distance of unit vectors) or "cosine"."""
    training: str = "joint"
    """"joint", or "staged": the parts one after the other."""
    order_from: float = 0.0
    """With base "order": share of the steps after which clips are also permuted; a step without them costs half."""
    stage_shares: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """With "staged": share of all steps spent on the backbone, the semantic MLP and the classifier."""

    def __post_init__(self) -> None:
        if self.training not in ("joint", "staged"):
            raise unknown_name("objective.arguments.training", self.training, ("joint", "staged"))
        if len(self.stage_shares) != 3 or min(self.stage_shares) <= 0 or abs(sum(self.stage_shares) - 1) > 1e-6:
            raise UserError(f"objective.arguments.stage_shares={list(self.stage_shares)} are three shares above 0 that "
                            "sum to 1")


def build(config: TrainConfig) -> Task:
    """Build the task: that of its base, with the term "label" and the label embeddings in the checkpoint.

    Raises:
        UserError: if labels cannot be embedded, or clips are mixed (a mixed clip has no one label to mean).
    """
    mine, rest = split_arguments(config.objective.arguments)
    if config.objective.mixup_alpha or config.objective.cutmix_alpha:
        raise UserError("objective.mixup_alpha and cutmix_alpha must be 0 with label embeddings: a mixed clip has no "
                        "one label to mean")
    unseen = unseen_classes(config.data.arguments)
    inner = build_base(config, mine.base, rest)
    both = embed_labels([*inner.class_names, *unseen], mine.label_source)
    K = len(inner.class_names)
    labels = replace(both, names=both.names[:K], vectors=both.vectors[:K])
    objective = LabelEmbeddingObjective(config.objective.weights, inner.objective,
                                        LabelEmbeddingLoss(labels.vectors, mine.label_loss),
                                        mine.stage_shares if mine.training == "staged" else None)
    report = {"label_source": labels.source if mine.label_source != DEFAULT_MODEL else DEFAULT_MODEL,
              "label_loss": mine.label_loss, "label_training": mine.training,
              "unknown_words": list(labels.unknown_words),
              "same_meaning": [list(pair) for pair in both.same_meaning()], "unseen_classes": list(unseen)}
    vectors = {"label_embeddings": labels.vectors} | ({"unseen_embeddings": both.vectors[K:]} if unseen else {})
    return replace(inner, objective=OrderLater(objective, mine.order_from) if mine.order_from else objective,
                   make_evaluator=lambda: LabelEmbeddingEvaluator(inner.make_evaluator(), labels.vectors),
                   model_arguments={**inner.model_arguments, "label_dim": labels.vectors.shape[1]},
                   extra={**inner.extra, **report}, tensors={**inner.tensors, **vectors})


def unseen_classes(arguments: dict[str, Any]) -> tuple[str, ...]:
    """Return `data.arguments.unseen_classes`, names whose videos are held out of training (default none).

    Raises:
        UserError: if it is no list of names, or another argument is there.
    """
    for name in arguments:
        if name != "unseen_classes":
            raise unknown_name("setting of data.arguments", name, ("unseen_classes",))
    names = arguments.get("unseen_classes", [])
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UserError(f"data.arguments.unseen_classes is a list of class names, got {names!r}")
    return tuple(names)


def split_arguments(arguments: dict[str, Any]) -> tuple[LabelArguments, dict[str, Any]]:
    """Divide `objective.arguments` into ours and the base's."""
    own = {field.name for field in fields(LabelArguments)}
    typed: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                             for key, value in arguments.items() if key in own}
    return LabelArguments(**typed), {key: value for key, value in arguments.items() if key not in own}


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
        stage_shares: shares of all steps for backbone, semantic MLP, classifier; None trains them jointly.
    """

    def __init__(self, weights: dict[str, float], base: Objective, loss: LabelEmbeddingLoss,
                 stage_shares: tuple[float, float, float] | None = None) -> None:
        super().__init__(weights)
        self.base = base
        self.loss = loss
        self.stage_shares = stage_shares
        self.trainable: set[str] | None = None

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the outputs for the clips of the batch and all terms."""
        self.base.step, self.base.total_steps = self.step, self.total_steps
        stage = self.stage if model.training and self.stage_shares is not None else None
        if stage is not None:
            self.enter(model, stage)
        outputs, terms = self.base(model, batch)
        if outputs.get("label_embedding") is None:
            raise UserError("the model has no label-embedding head; set model.name=sevitar")
        meaning = self.loss(outputs, batch["label"])
        if stage is not None:
            return outputs, (terms, meaning, {"class": terms["class"]})[stage]
        return outputs, {**terms, **meaning}

    @property
    def stage(self) -> int:
        """0 while the backbone learns, 1 the semantic MLP, 2 the classifier; follows from the step alone."""
        assert self.stage_shares is not None
        done = self.step / max(1, self.total_steps)
        return 0 if done < self.stage_shares[0] else 1 if done < sum(self.stage_shares[:2]) else 2

    def enter(self, model: nn.Module, stage: int) -> None:
        """Let only the parts of a stage learn; what the configuration froze stays frozen.

        In stage 0 the classifier learns with the backbone, whose teacher it is, and sees a ŝ that is not trained yet
        (the paper does not say what the backbone was trained by). A parameter without gradient is not moved by any
        optimiser, by momentum and weight decay neither.
        """
        if self.trainable is None:
            self.trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, parameter in model.named_parameters():
            part = 1 if name.startswith("semantic_mlp.") else 2 if name.startswith("class_mlp.") else 0
            learns = part == stage or (stage == 0 and part == 2)
            parameter.requires_grad_(learns and name in self.trainable)


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
