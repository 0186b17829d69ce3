"""The types that the training loop and the tasks share: data, objective, evaluator, task.

A task is a function, named in `tasks.TASKS`:

    def build(config: TrainConfig) -> Task

The loop then does, for every part of a step, on every process:

    outputs, terms = task.objective(model, batch)          # terms: {"name": unweighted scalar}
    loss = task.objective.total(terms)                     # then backward, clipping, optimiser step

* `objective` always sees the plain module, never a DDP wrapper: the wrapper sits around model and
  objective together. It may call the model several times and `torch.autograd.grad` with respect to
  inputs, also in several processes. Evaluate every head in every step (or set
  `train.unused_parameters`): a parameter without gradient stalls DDP.
* Randomness in an objective: torch's global generator, which the loop seeds for every step from
  (seed, step, process).
* `batch` is what `task.collate` made of items `train_data[(epoch, i)]`; nested dicts and lists of
  tensors move to the device. An item's randomness comes from (seed, epoch, i) alone. Data that is
  no random-access list (shards of records) gives `batches(first_part, part_size, rank, world)`
  instead: an endless iterator of collated batches that starts at part number `first_part` of this
  rank; its `__len__` is the number of samples of one epoch.
* Evaluation feeds every process its share of `val_data[(0, i)]`, merges the states of the
  evaluators in rank order and computes once. An item must carry `"sample": i`, so that merged rows
  can be put in order.

`tasks/features.py` has the shortest objective.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from marey.errors import unknown_name
from marey.training.stages import Stage, stage_at
from marey.transforms.pose_clip import PoseSampling
from marey.transforms.preprocess import Preprocess

Batch = dict[str, Any]
"""What `collate` made of some items: tensors, or nested dicts and lists of tensors, and plain
values."""
Outputs = dict[str, Any]
"""What a model returns, see docs/conventions.md."""
Terms = dict[str, Tensor]
"""Name -> unweighted scalar."""


class Data(Protocol):
    """Random access to training or evaluation items."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> Any: ...


class DataStream(Protocol):
    """Batches of data that has no random access, such as shards of records."""

    def __len__(self) -> int: ...

    def batches(
        self, first_part: int, part_size: int, rank: int, world: int
    ) -> Iterator[Batch]: ...


Losses = Callable[..., tuple[Outputs, Terms]]
"""(batch, return_attention=False) -> outputs and unweighted terms of one forward pass."""


class Objective(nn.Module):
    """A sum of named loss terms, all computed from one forward pass of a part of a step.

    A term is a module `(outputs, batch) -> unweighted scalar` (mean over the batch). Subclasses say
    what happens before the forward pass (`prepare`) and how the model is called (`call_model`). A
    module, so that the buffers of the terms follow the device. Before every step the loop sets
    `step` and `total_steps`, which decide the stage.

    Args:
        weights: factor of each term; a term of weight 0 is not computed.
        terms: name -> term, in the order of the sum.
        stages: which terms count when; empty: all of them, always.
    """

    step: int = 0
    total_steps: int = 1
    adversarial: (
        Callable[[Losses, Callable[[Terms], Tensor], Batch], tuple[Outputs, Terms]] | None
    ) = None
    """Algorithm 1 of GAT: computes the terms on clean and on perturbed inputs; None: on clean
    inputs alone."""
    evaluation_terms: tuple[str, ...] = ("class",)
    """Terms that are computed in evaluation, where nothing is minimised."""

    def __init__(
        self,
        weights: dict[str, float],
        terms: Mapping[str, nn.Module] | None = None,
        stages: Sequence[Stage] = (),
    ) -> None:
        super().__init__()
        self.weights, self.stages = dict(weights), tuple(stages)
        self.terms = nn.ModuleDict(terms or {})
        self.trainable: set[str] | None = None

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the model's outputs and the unweighted terms that count in this step."""
        names = self.enter_stage(model) if model.training else self.evaluation_terms
        batch = self.prepare(model, batch, names)
        losses = functools.partial(self.losses, model, names)
        if self.adversarial is not None and model.training and torch.is_grad_enabled():
            return self.adversarial(losses, self.total, batch)
        return losses(batch)

    def enter_stage(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the terms that count now.

        Parameters that the stage does not train are frozen; what the configuration froze stays
        frozen.
        """
        weighed = [name for name in self.terms if self.weights.get(name)]
        if not self.stages:
            return tuple(weighed)
        stage = stage_at(self.stages, self.step, self.total_steps)
        # No optimiser changes a parameter without gradient, neither by momentum nor by weight
        # decay.
        if stage.trains is not None:
            if self.trainable is None:
                self.trainable = {
                    name for name, parameter in model.named_parameters() if parameter.requires_grad
                }
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(stage.trains(name) and name in self.trainable)
        return tuple(name for name in weighed if name in stage.terms)

    def prepare(self, model: nn.Module, batch: Batch, names: Sequence[str]) -> Batch:
        """Return the batch as the model and the terms of these names take it."""
        return batch

    def call_model(
        self, model: nn.Module, batch: Batch, names: Sequence[str], return_attention: bool
    ) -> Outputs:
        """Call the model on a prepared batch."""
        raise NotImplementedError

    def losses(
        self, model: nn.Module, names: Sequence[str], batch: Batch, return_attention: bool = False
    ) -> tuple[Outputs, Terms]:
        """Return the outputs for a prepared batch and the unweighted terms of these names."""
        outputs = self.call_model(model, batch, names, return_attention)
        return outputs, {name: self.terms[name](outputs, batch) for name in names}

    def total(self, terms: Terms) -> Tensor:
        r"""Weigh and sum the terms.

        Truong et al., "DirecFormer", CVPR 2022, Eq. 14, with the terms "class", "order", "guided":

            L = lambda_cls L_cls + lambda_ord L_ord + lambda_self L_self

        The values of lambda are illegible in our copy of the paper.

        Raises:
            UserError: if a term has no weight in `objective.weights`.
        """
        for name in terms:
            if name not in self.weights:
                raise unknown_name(
                    "loss term (give objective.weights one factor for each)", name, self.weights
                )
        weighted = [self.weights[name] * term.float() for name, term in terms.items()]
        return torch.stack(weighted).sum()  # Eq. 14


def check_terms(weights: Mapping[str, float], known: Sequence[str]) -> None:
    """Raise a UserError where `objective.weights` names a term that a task has not."""
    for name in weights:
        if name not in (*known, *ADVERSARIAL_TERMS):
            raise unknown_name("loss term in objective.weights", name, (*known, *ADVERSARIAL_TERMS))


RECALIBRATION_BATCHES = 20

ADVERSARIAL_TERMS = ("adversarial", "attention")
"""Terms that every task can have, see `terms.adversarial`."""


class Evaluator:
    """Collects one row of CPU tensors per sample, and computes metrics from all rows at the end.

    Subclasses set `main`, and override `row_of` (or `update`, `state` and `merge` together, to keep
    something smaller than rows) and `compute`.
    """

    main: str = "top1"
    """Key of `compute()` that chooses the best checkpoint, drives the plateau schedule and early
    stopping."""
    higher_is_better: bool = True

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in one batch."""
        for position, sample in enumerate(batch["sample"].tolist()):
            self.rows[sample] = self.row_of(outputs, batch, position)

    def row_of(self, outputs: Outputs, batch: Batch, position: int) -> dict[str, Any]:
        """Return CPU tensors and plain values of the sample at a position of the batch."""
        raise NotImplementedError

    def compute(self) -> dict[str, Any]:
        """Return the metrics; numbers are logged, other values are only returned."""
        raise NotImplementedError

    def state(self) -> Any:
        """Return what another process needs to merge; sent by torch.distributed."""
        return self.rows

    def merge(self, states: Sequence[Any]) -> None:
        """Replace the rows by those of all processes, in order of sample number, each once."""
        together = {sample: row for state in states for sample, row in state.items()}
        self.rows = dict(sorted(together.items()))


def no_items(tensors: Mapping[str, Tensor]) -> frozenset[int]:
    """Return no position: what is known of no item."""
    return frozenset()


@dataclass(kw_only=True)
class Task:
    """One kind of learning, built for one configuration."""

    train_data: Data | DataStream
    """Training items, asked for as (epoch, i)."""
    val_data: Data | None
    """Evaluation items, asked for as (0, i); None trains without evaluation, and the last weights
    are the best."""
    objective: Objective
    make_evaluator: Callable[[], Evaluator]
    """A fresh evaluator for every evaluation."""
    model_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the model that follow from the data, such as num_classes; the recipe's own win
    over them."""
    class_names: tuple[str, ...] = ()
    preprocess: Preprocess | PoseSampling | None = None
    """The specification that travels in the checkpoint."""
    collate: Callable[[list[Any]], Batch] = default_collate
    labels: Sequence[int] | None = None
    """Class of every training sample, for the balanced sampler; None where there is no single
    class."""
    train_names: Sequence[str] | None = None
    """Name of every training sample, for messages."""
    data_note: str = ""
    """How the data were read, for the user: labels or groups taken from file names."""
    describe_training: Callable[[], dict[str, Tensor]] = dict
    """Returns the tensors by which what is trained on is known again (`datasets.seen`); empty where
    nothing can say."""
    seen_in_training: Callable[[Mapping[str, Tensor]], frozenset[int]] = no_items
    """Given such tensors, returns the positions of the items of `val_data` that they know."""
    extra: dict[str, Any] = field(default_factory=dict)
    """JSON for the checkpoint's "extra" (the loop adds the configuration and the metrics)."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors for the checkpoint: permutations, label embeddings."""
    build_model: Callable[[dict[str, Any]], nn.Module] | None = None
    """Builds the module from the final arguments where `create_model` is not enough."""
    prepare_model: Callable[[nn.Module], None] | None = None
    """Called once with the module before the first step (not on resume), e.g. to copy label
    embeddings into it."""
    describes_clips: bool = True
    """The model reads batch["clip"] and gives "embedding" and "logits", so trust can be fitted."""
    recalibrates: bool = False
    """Measure the statistics of batch norms that learn anew before every evaluation, on
    `RECALIBRATION_BATCHES` training batches (`layers.batch_statistics`)."""
    store_features: Callable[[Task], Task] | None = None
    """Return the same task on stored features of its frozen stem (`data.feature_cache`); None where
    it has no stem."""
