"""Heads on stored features z, many at once: SeViTAR's of section 3.2 beside its controls.

Models of one row (folds, or settings that are compared) train together: every parameter has a first
axis for the model, so one batched product serves all. Nothing passes from one model to another.

Legend: F models, M videos, B videos of a step, D width of z, E width of the label vectors, K
classes, H hidden width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from marey.papers.cells import Row

HIDDEN = 32
"""Hidden width of both MLPs of SeViTAR's head."""
BATCH_SIZE = 32
SEMANTIC = ("semantic.0", "semantic.1")
"""Layers of the semantic MLP; the others classify."""


@dataclass(frozen=True, kw_only=True)
class HeadRow(Row):
    """One head of the comparison."""

    kind: Literal["linear", "mlp", "concat", "semantic"]
    """One linear layer, one hidden layer with the parameters of "concat", [MLP(z), z], or the
    semantic MLP alone, which classifies nothing."""
    vectors: Literal["none", "meaning", "words", "random", "permuted"] = "none"
    """What MLP(z) is trained towards: nothing, the sentence model's vectors of the names, the mean
    of their words' vectors, random unit vectors, or the sentence model's vectors under other
    names."""
    staged: bool = False
    """First the semantic MLP, then the classifier on [ŝ, z], each in half of the steps; else both
    together."""
    times: int = 1
    """Steps, in multiples of the other heads'."""


class Setting(NamedTuple):
    """What is tuned."""

    lr: float
    weight_decay: float
    dropout: float


SETTINGS = tuple(
    Setting(lr, weight_decay, dropout)
    for lr in (1e-3, 4e-3)
    for weight_decay, dropout in ((0.01, 0.0), (0.01, 0.5), (1.0, 0.5))
)
"""Tried for every head alike."""


def layer_widths(kind: str, D: int, K: int, E: int) -> dict[str, tuple[int, int]]:
    """Return layer -> (inputs, outputs)."""
    concat = {
        "semantic.0": (D, HIDDEN),
        "semantic.1": (HIDDEN, E),
        "class.0": (E + D, HIDDEN),
        "class.1": (HIDDEN, K),
    }
    if kind == "concat":
        return concat
    if kind == "semantic":
        return {name: concat[name] for name in SEMANTIC}
    if kind == "linear":
        return {"class.1": (D, K)}
    H = round((num_parameters(concat) - K) / (D + K + 1))
    return {"class.0": (D, H), "class.1": (H, K)}


def num_parameters(widths: Mapping[str, tuple[int, int]]) -> int:
    """Return the weights and biases of one model."""
    return sum((width_in + 1) * width_out for width_in, width_out in widths.values())


def initial(widths: Mapping[str, tuple[int, int]], seeds: Sequence[int]) -> dict[str, Tensor]:
    """Draw weights (F, in, out) from a normal of standard deviation 1 / sqrt(in); biases are zero.

    The seed of a model decides its weights.
    """
    found: dict[str, Tensor] = {}
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for name, (width_in, width_out) in widths.items():
        drawn = [torch.randn(width_in, width_out, generator=g) for g in generators]
        found[f"{name}.weight"] = torch.stack(drawn) / math.sqrt(width_in)
        found[f"{name}.bias"] = torch.zeros(len(seeds), 1, width_out)
    return found


class HeadOutputs(NamedTuple):
    """What F heads answer."""

    logits: Tensor | None
    """(F, B, K)."""
    label_embedding: Tensor | None
    """ŝ, (F, B, E)."""


def apply_heads(
    weights: Mapping[str, Tensor],
    z: Tensor,
    *,
    dropout: Tensor | None = None,
    generator: torch.Generator | None = None,
    detach: bool = False,
    classify: bool = True,
) -> HeadOutputs:
    """Apply F heads to features (F, B, D): ŝ = MLP(z), logits = MLP([ŝ, z]) (section 3.2).

    Args:
        weights: as `initial` returns them.
        z: (F, B, D).
        dropout: (F, 1, 1), of hidden units, or of z below a linear layer; None in evaluation.
        generator: of the dropout.
        detach: stop the classification loss at ŝ.
        classify: False leaves the logits out.
    """

    def linear(name: str, values: Tensor) -> Tensor:
        return torch.baddbmm(weights[f"{name}.bias"], values, weights[f"{name}.weight"])

    def drop(values: Tensor) -> Tensor:
        if dropout is None:
            return values
        kept = torch.rand(values.shape, generator=generator) >= dropout
        return values * kept / (1 - dropout)

    embedding = None
    read = z
    if "semantic.0.weight" in weights:
        embedding = linear("semantic.1", drop(F.gelu(linear("semantic.0", z))))
        read = torch.cat((embedding.detach() if detach else embedding, z), dim=-1)
    if not classify:
        return HeadOutputs(None, embedding)
    hidden = read
    if "class.0.weight" in weights:
        hidden = F.gelu(linear("class.0", read))
    return HeadOutputs(linear("class.1", drop(hidden)), embedding)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of steps: which losses count, which layers train."""

    steps: int
    losses: tuple[str, ...]
    layers: tuple[str, ...]


def stages_of(row: HeadRow, layers: Sequence[str], steps: int) -> tuple[Stage, ...]:
    """Return the stages of a row; they share its steps equally.

    The rate of every stage falls from its peak to 0 along half a cosine, so that the sum of the
    rates is the same for one stage and for two.
    """
    steps, label = steps * row.times, () if row.vectors == "none" else ("label",)
    if row.kind == "semantic":
        return (Stage(steps=steps, losses=label, layers=tuple(layers)),)
    if not row.staged:
        return (Stage(steps=steps, losses=("class", *label), layers=tuple(layers)),)
    first = tuple(name for name in layers if name in SEMANTIC)
    last = tuple(name for name in layers if name not in SEMANTIC)
    return (
        Stage(steps=steps // 2, losses=label, layers=first),
        Stage(steps=steps - steps // 2, losses=("class",), layers=last),
    )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What F models are trained on."""

    z: Tensor
    """float32, (F, M, D), standardised by the training videos of each model."""
    labels: Tensor
    """int64, (M,)."""
    train_rows: Sequence[Tensor]
    """Training videos of each model."""
    num_classes: int
    vectors: Tensor
    """float32, (F, K, E), unit vectors; zero where a row has none."""
    settings: Sequence[Setting]
    """Of each model."""
    seeds: Sequence[int]
    """Of each model: its initial weights and the order of its videos."""


def train_heads(row: HeadRow, problem: Problem, steps: int) -> dict[str, Tensor]:
    """Train the F models of a row with AdamW; returns their weights.

    Loss: cross-entropy plus ||ŝ - s||², the paper's mean squared error times E.
    """
    Fm, _, D = problem.z.shape
    K, E = problem.num_classes, problem.vectors.shape[2]
    weights = initial(layer_widths(row.kind, D, K, E), problem.seeds)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
    generator = torch.Generator().manual_seed(problem.seeds[0])
    orders = [torch.Generator().manual_seed(seed + 1) for seed in problem.seeds]
    lr, decay, dropout = (
        torch.tensor([setting[part] for setting in problem.settings]).view(Fm, 1, 1)
        for part in range(3)
    )
    models = torch.arange(Fm)[:, None]

    for stage in stages_of(row, layers, steps):
        names = [name for name in weights if name.rpartition(".")[0] in stage.layers]
        adam = AdamW({name: weights[name] for name in names}, decay)
        for step in range(stage.steps):
            rows = torch.stack(
                [
                    known[torch.randint(len(known), (BATCH_SIZE,), generator=order)]
                    for known, order in zip(problem.train_rows, orders, strict=True)
                ]
            )  # (F, B)
            targets = problem.labels[rows]
            trained = {
                name: value.detach().requires_grad_(name in names)
                for name, value in weights.items()
            }
            outputs = apply_heads(
                trained,
                problem.z[models, rows],
                dropout=dropout,
                generator=generator,
                detach=row.staged,
                classify="class" in stage.losses,
            )
            loss = _loss(outputs, targets, problem.vectors[models, targets], stage.losses)
            gradients = torch.autograd.grad(loss, [trained[name] for name in names])
            rate = lr * (0.5 + 0.5 * math.cos(math.pi * step / stage.steps))
            weights |= adam.step(dict(zip(names, gradients, strict=True)), rate)
    return weights


def _loss(outputs: HeadOutputs, targets: Tensor, vectors: Tensor, losses: Sequence[str]) -> Tensor:
    """Return the sum over models of each one's mean loss over its batch."""
    total = torch.zeros(())
    if "class" in losses:
        assert outputs.logits is not None
        B = targets.shape[1]
        flat = outputs.logits.flatten(0, 1)
        total = total + F.cross_entropy(flat, targets.flatten(), reduction="sum") / B
    if "label" in losses:
        assert outputs.label_embedding is not None
        total = total + (outputs.label_embedding - vectors).square().sum(-1).mean(1).sum()
    return total


class AdamW:
    """AdamW with a rate and a decay for every model (Loshchilov and Hutter, 2019); biases do not
    decay.

    Args:
        weights: (F, in, out) each.
        decay: (F, 1, 1).
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: Tensor) -> None:
        self.weights = {name: value.detach() for name, value in weights.items()}
        self.decay = decay
        self.means = {name: torch.zeros_like(value) for name, value in weights.items()}
        self.squares = {name: torch.zeros_like(value) for name, value in weights.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], rate: Tensor) -> dict[str, Tensor]:
        """Return the weights after one step at `rate` (F, 1, 1)."""
        self.steps += 1
        beta1, beta2 = 0.9, 0.999
        correct1, correct2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        for name, gradient in gradients.items():
            mean = self.means[name].mul_(beta1).add_(gradient, alpha=1 - beta1)
            square = self.squares[name].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            change = (mean / correct1).div_((square / correct2).sqrt_().add_(1e-8))
            value = self.weights[name]
            if name.endswith(".weight"):
                value = value * (1 - rate * self.decay)
            self.weights[name] = value - rate * change
        return dict(self.weights)


# ---- label vectors ------------------------------------------------------------------------------


def row_vectors(row: HeadRow, meaning: Tensor, words: Tensor, seed: int) -> Tensor:
    """Return what a row's ŝ is trained towards, unit vectors (K, E); zeros where it has none.

    Args:
        meaning: (K, E) of the sentence model.
        words: (K, E') of the words' vectors.
        seed: draws the random vectors, and which name gets which vector.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    if row.vectors == "meaning":
        return meaning
    if row.vectors == "words":
        return words
    if row.vectors == "random":
        return F.normalize(torch.randn(meaning.shape, generator=generator), dim=1)
    if row.vectors == "permuted":
        return meaning[derangement(len(meaning), generator)]
    return torch.zeros_like(meaning)


def in_their_span(vectors: Tensor) -> Tensor:
    """Return label vectors (K, E) in coordinates of the space they span, (K, K), zeros for E < K.

    A rotation changes no distance, so ||ŝ - s||² is that of the whole space for every ŝ in the
    span; outside it all targets are 0. The semantic MLP then has K outputs in place of E.
    """
    K = len(vectors)
    if not bool(vectors.any()):
        return vectors.new_zeros(K, K)
    left, sizes, _ = torch.linalg.svd(vectors, full_matrices=False)
    coordinates = left * sizes
    return F.pad(coordinates, (0, K - coordinates.shape[1]))


def derangement(count: int, generator: torch.Generator) -> Tensor:
    """Draw a permutation that leaves nothing in its place, int64 (count,), count at least 2."""
    while True:
        order = torch.randperm(count, generator=generator)
        if bool((order != torch.arange(count)).all()):
            return order


@functools.cache
def parameters_of(kind: str, D: int, K: int, E: int) -> int:
    """Return the parameters of a head."""
    return num_parameters(layer_widths(kind, D, K, E))
