"""Order: the class from the ordered clip and the order from the permuted one, in one forward (DirecFormer)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from marey.errors import UserError, unknown_name
from marey.losses.order import DirecFormerLoss
from marey.metrics.order import chance_order_accuracy, mean_with_interval, order_accuracy
from marey.order.correction import order_matrix, permute_frames
from marey.order.path import hamiltonian_path
from marey.order.permutations import load_permutations, make_permutation_set, random_permutations
from marey.training.config import TrainConfig
from marey.training.task import Batch, Objective, Outputs, Task, Terms
from marey.training.tasks.clips import ClassificationEvaluator
from marey.training.tasks.clips import build as build_classification


@dataclass(frozen=True, kw_only=True)
class OrderArguments:
    """What `objective.arguments` may hold for the kind "order"."""

    num_permutations: int = 1000
    """P, rows of the permutation set (at most T! - 1)."""
    rule: str = "closest"
    """How they are chosen: "closest" (the paper), "farthest" (the published file), "random"."""
    permutation_seed: int = 0
    """Seed of the set."""
    permutation_file: str | None = None
    """A `.npy` set of the released layout in place of one made here."""
    identity_first: bool = False
    """With `permutation_file`: class 0 is the ordered clip, as the released code counts."""
    signs: str = "paper"
    """Sign matrix of the guided loss, see `marey.losses.order.order_signs`."""
    mask_diagonal: bool = False
    """Leave the diagonal out of the guided loss."""
    guided_on_ordered: bool = False
    """Apply the guided loss to the ordered pass too."""
    backwards: tuple[str, ...] = ()
    """Classes whose clips are recordings played backwards. For the order terms they are turned round first, so that
    "before" means before in the recording: where every action also exists backwards, the order as played cannot be
    told from shuffled frames, for each set of frames comes in both directions."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OrderArguments:
        """Check the names and build; lists become tuples."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("setting of objective.arguments", name, known)
        typed: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                 for name, value in values.items()}
        return cls(**typed)


def build(config: TrainConfig) -> Task:
    """Build the order task on the clips of the classification task.

    `objective.weights` says which terms are trained: "class", "order", "guided" (Eq. 14).

    Raises:
        UserError: if the permutation set does not fit the clips, or a class played backwards is unknown.
    """
    arguments = OrderArguments.from_dict(config.objective.arguments)
    task = build_classification(config)
    assert task.preprocess is not None
    T = task.preprocess.sampling.num_frames
    if arguments.permutation_file is not None:
        rows = load_permutations(arguments.permutation_file, T, identity_first=arguments.identity_first)
    else:
        rows = make_permutation_set(arguments.num_permutations, T, rule=arguments.rule, seed=arguments.permutation_seed)
    for name in arguments.backwards:
        if name not in task.class_names:
            raise unknown_name("class in objective.arguments.backwards", name, task.class_names)
    objective = OrderObjective(config.objective.weights, rows, arguments, task.class_names,
                               label_smoothing=config.objective.label_smoothing)
    return replace(task, objective=objective, tensors={**task.tensors, "permutations": rows},
                   make_evaluator=lambda: OrderEvaluator(task.class_names),
                   model_arguments={**task.model_arguments, "num_orders": len(rows)},
                   extra={**task.extra, "chance_order_accuracy": chance_order_accuracy(T)})


class OrderObjective(Objective):
    """The terms "class", "order" and "guided", as far as they have a weight; both clips go through one forward.

    Args:
        weights: lambda_cls, lambda_ord, lambda_self of Eq. 14 under "class", "order", "guided".
        permutations: int64, (P, T).
        arguments: see `OrderArguments`.
        class_names: in label order.
    """

    def __init__(self, weights: dict[str, float], permutations: Tensor, arguments: OrderArguments,
                 class_names: Sequence[str], *, label_smoothing: float = 0.0) -> None:
        super().__init__(weights)
        for name in weights:
            if name not in ("class", "order", "guided"):
                raise unknown_name("loss term", name, ("class", "order", "guided"))
        self.loss = DirecFormerLoss(order=bool(weights.get("order")), guided=bool(weights.get("guided")),
                                    guided_on_ordered=arguments.guided_on_ordered, signs=arguments.signs,
                                    mask_diagonal=arguments.mask_diagonal, label_smoothing=label_smoothing)
        self.register_buffer("permutations", permutations, persistent=False)
        backwards = torch.tensor([name in arguments.backwards for name in class_names])
        self.register_buffer("backwards", backwards, persistent=False)
        self.permutations: Tensor
        self.backwards: Tensor

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the outputs for the ordered clips, with the recovered order in evaluation, and the terms."""
        return self.learn(model, batch) if model.training else self.measure(model, batch)

    def learn(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Draw one permutation of the set per clip, run ordered and permuted clips together, and return the terms."""
        clip, label = batch["clip"], batch["label"]
        index = self.draw(batch).to(clip.device)
        targets = {"label": label, "permutation_index": index, "order": self.permutations[index]}
        if self.loss.order or self.loss.guided:
            permuted = permute_frames(self.as_recorded(clip, label), targets["order"])
            clip = torch.cat([clip, permuted])
        outputs = model(clip, return_attention=True) if self.loss.guided else model(clip)
        terms = self.loss(outputs, targets)
        return of_ordered(outputs, len(label)), terms

    def draw(self, batch: Batch) -> Tensor:
        """Return which permutation of the set each clip of the batch gets, int64 (B,), at random."""
        return torch.randint(len(self.permutations), (len(batch["label"]),))

    def measure(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return class logits of the ordered clips and the path recovered from shuffled ones.

        Sample i is shuffled by the same permutation in every evaluation of every model, uniform over all T!.
        """
        clip, label = batch["clip"], batch["label"]
        T = clip.shape[1]
        order = torch.cat([random_permutations(1, T, torch.Generator().manual_seed(sample))
                           for sample in batch["sample"].tolist()]).to(clip.device)
        outputs = model(torch.cat([clip, permute_frames(self.as_recorded(clip, label), order)]), return_attention=True)
        answer = {**of_ordered(outputs, len(label)), "order": order}
        if outputs.get("attention_time"):
            matrix = order_matrix([outputs["attention_time"][-1][len(label):]], T)
            answer["path"] = hamiltonian_path(matrix)[0]
        return answer, {"class": nn.functional.cross_entropy(answer["logits"], label)}

    def as_recorded(self, clip: Tensor, label: Tensor) -> Tensor:
        """Turn the clips of classes played backwards round in time."""
        turned = self.backwards[label].view(-1, *[1] * (clip.ndim - 1))
        return torch.where(turned, clip.flip(1), clip)


def of_ordered(outputs: Outputs, num_ordered: int) -> Outputs:
    """Return the rows of the ordered clips, the first of the batch, of every output with one row per clip."""
    return {name: value[:num_ordered] for name, value in outputs.items() if isinstance(value, Tensor)}


class OrderLater(Objective):
    """An objective whose order and guided terms begin after a share of the steps.

    Args:
        inner: an `OrderObjective`, or one built on it.
        order_from: share of the steps, 0..1.

    Raises:
        UserError: if the inner objective learns no order.
    """

    def __init__(self, inner: Objective, order_from: float):
        super().__init__(inner.weights)
        self.inner, self.order_from = inner, order_from
        found = next((part.loss for part in inner.modules() if isinstance(part, OrderObjective)), None)
        if found is None:
            raise UserError("objective.arguments.order_from needs a task that learns the order (inner or base 'order')")
        self.order_loss, self.wanted = found, (found.order, found.guided)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return outputs and terms of the inner objective, with or without those of the order."""
        begun = self.step >= self.order_from * self.total_steps or not model.training
        self.order_loss.order, self.order_loss.guided = self.wanted if begun else (False, False)
        self.inner.step, self.inner.total_steps = self.step, self.total_steps
        return self.inner(model, batch)


class OrderEvaluator(ClassificationEvaluator):
    """The classification metrics and OrderAcc with its interval and chance level."""

    def row_of(self, outputs: Outputs, batch: Batch, place: int) -> dict[str, Any]:
        """Keep logits, label and the OrderAcc of the sample."""
        row = super().row_of(outputs, batch, place)
        if "path" in outputs:
            path, order = outputs["path"][place].cpu(), outputs["order"][place].cpu()
            row |= {"order_accuracy": float(order_accuracy(path[None], order[None])), "num_frames": len(path)}
        return row

    def compute(self) -> dict[str, Any]:
        """Return top-1 and the others as shares; "order_accuracy" and "order_accuracy_chance" where it was measured."""
        metrics = super().compute()
        found = [row["order_accuracy"] for row in self.rows.values() if "order_accuracy" in row]
        if found:
            mean, interval = mean_with_interval(torch.tensor(found))
            T = next(row["num_frames"] for row in self.rows.values() if "num_frames" in row)
            metrics |= {"order_accuracy": mean, "order_accuracy_low": interval[0], "order_accuracy_high": interval[1],
                        "order_accuracy_chance": chance_order_accuracy(T)}
        return metrics
