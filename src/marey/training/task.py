"""What the training loop needs to know about a kind of learning: its data, its losses, its metric.

A task is a module with one function, named in `TASKS`:

    def build(config: TrainConfig) -> Task

The loop then does, for every part of a step, on every process:

    outputs, terms = task.objective(model, batch)          # terms: {"name": unweighted scalar}
    loss = sum(config.objective.weights[name] * term)      # backward, clip, optimiser step: the loop's work

* `objective` always sees the plain module, never a DDP wrapper: the wrapper sits around model and objective together.
  It may call the model several times and `torch.autograd.grad` with respect to inputs, also in several processes.
  Evaluate every head in every step (or set `train.unused_parameters`): a parameter without gradient stalls DDP.
* Randomness in an objective: torch's global generator, which the loop seeds for every step from (seed, step, process).
* `batch` is what `task.collate` made of items `train_data[(epoch, i)]`; nested dicts and lists of tensors move to the
  device. An item's randomness comes from (seed, epoch, i) alone. Data that is no random-access list (shards of
  records) gives `batches(first_part, part_size, rank, world)` instead: an endless iterator of collated batches that
  starts at part number `first_part` of this rank; its `__len__` is the number of samples of one epoch.
* Evaluation feeds every process its share of `val_data[(0, i)]`, merges the states of the evaluators in rank order and
  computes once. An item must carry `"sample": i`, so that merged rows can be put in order.

`classification.py` is the shortest example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from marey.errors import unknown_name
from marey.transforms.preprocess import Preprocess

Batch = dict[str, Any]

Outputs = dict[str, Any]

Terms = dict[str, Tensor]



class Data(Protocol):
    """Random access to training or evaluation items."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> Any: ...



class DataStream(Protocol):
    """Batches of data that has no random access, such as shards of records."""

    def __len__(self) -> int: ...

    def batches(self, first_part: int, part_size: int, rank: int, world: int) -> Iterator[Batch]: ...



class Objective(nn.Module):
    """Everything that is minimised, from ONE call per part of a step; a module, so that its buffers follow the device.

    Subclasses override `forward(model, batch) -> (outputs, terms)`. `outputs` is what the evaluator reads; `terms` are
    unweighted scalars (mean over the batch), one for every name in the weights. A term whose weight is 0 may be left
    out. Before every step the loop sets `step` and `total_steps`, for objectives that change with time.
    """

    step: int = 0
    total_steps: int = 1

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, model: nn.Module, batch: Batch) -> tuple[Outputs, Terms]:
        """Return the model's outputs and the unweighted loss terms."""
        raise NotImplementedError

    def total(self, terms: Terms) -> Tensor:
        """Weigh and sum the terms.

        Raises:
            UserError: if a term has no weight in `objective.weights`.
        """
        for name in terms:
            if name not in self.weights:
                raise unknown_name("loss term (give objective.weights one factor for each)", name, self.weights)
        return torch.stack([self.weights[name] * term.float() for name, term in terms.items()]).sum()



class Evaluator:
    """Collects one row of CPU tensors per sample, and computes metrics from all rows at the end.

    Subclasses set `main`, and override `row_of` (or `update`, `state` and `merge` together, to keep something smaller
    than rows) and `compute`.
    """

    main: str = "top1"
    """Key of `compute()` that chooses the best checkpoint, drives the plateau schedule and early stopping."""
    higher_is_better: bool = True

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in one batch."""
        for place, sample in enumerate(batch["sample"].tolist()):
            self.rows[sample] = self.row_of(outputs, batch, place)

    def row_of(self, outputs: Outputs, batch: Batch, place: int) -> dict[str, Any]:
        """Return what is kept of the sample at `place` of a batch: CPU tensors and plain values."""
        raise NotImplementedError

    def compute(self) -> dict[str, Any]:
        """Return the metrics; numbers are logged, other values are only returned."""
        raise NotImplementedError

    def state(self) -> Any:
        """Return what another process needs to merge; sent by torch.distributed."""
        return self.rows

    def merge(self, states: Sequence[Any]) -> None:
        """Replace this evaluator's rows by those of all processes, ordered by sample number, each sample once."""
        together = {sample: row for state in states for sample, row in state.items()}
        self.rows = dict(sorted(together.items()))



@dataclass(kw_only=True)
class Task:
    """One kind of learning, built for one configuration."""

    train_data: Data | DataStream
    """Training items, asked for as (epoch, i)."""
    val_data: Data | None
    """Evaluation items, asked for as (0, i); None trains without evaluation, and the last weights are the best."""
    objective: Objective
    make_evaluator: Callable[[], Evaluator]
    """A fresh evaluator for every evaluation."""
    model_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the model that follow from the data, such as num_classes; the recipe's own win over them."""
    class_names: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    """The specification that travels in the checkpoint."""
    collate: Callable[[list[Any]], Batch] = default_collate
    labels: Sequence[int] | None = None
    """Class of every training sample, for the balanced sampler; None where there is no single class."""
    train_names: Sequence[str] | None = None
    """Name of every training sample, for messages."""
    extra: dict[str, Any] = field(default_factory=dict)
    """JSON for the checkpoint's "extra" (the loop adds the configuration and the metrics)."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors for the checkpoint: permutations, label embeddings."""
    build_model: Callable[[dict[str, Any]], nn.Module] | None = None
    """Builds the module from the final arguments where `create_model` is not enough."""
    prepare_model: Callable[[nn.Module], None] | None = None
    """Called once with the module before the first step (not on resume), e.g. to copy label embeddings into it."""
    describes_clips: bool = True
    """The model reads batch["clip"] and gives "embedding" and "logits", so trust can be fitted."""
