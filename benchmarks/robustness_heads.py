"""The heads of the robustness study: small networks on stored features, many trained at once.

Every parameter has a leading axis E: one model for each seed and fold. All models of a head see the
same minibatches; a weight of 0 hides a clip from the models that are tested on it.

Legend: E models, N clips, T = 4 frames, L = T * 4 tokens, d of a token, m of the motion vector, F
of the pooled vector, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from marey.layers.directed_attention import directed_attention

WIDTH = 32
STEPS = 100
BATCH = 64
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2
TENT_STEPS = 5
TENT_LEARNING_RATE = 1e-2
"""Chosen by custom before the first run, and not changed after it."""

Parameters = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Features of some clips, standardised for each model by the clips it learns from."""

    cells: Tensor
    """(E, n, L, d)."""
    motion: Tensor
    """(E, n, m)."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the shapes of the parameters follow from."""

    models: int
    width: int
    """d."""
    motion: int
    """m."""
    classes: int
    label_vectors: Tensor
    """(K, D) unit vectors of the classes' names."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One head: its parameters, its answer, and what is added to the cross-entropy."""

    name: str
    says: str
    build: Callable[[Sizes, Generator], Parameters]
    logits: Callable[[Parameters, Inputs], Tensor]
    """(E, n, K)."""
    extra_loss: Callable[[Parameters, Inputs, Tensor, Sizes], Tensor] | None = None
    """(E, n), added to the cross-entropy."""


def _linear(sizes: Sizes, generator: Generator, inputs: int, outputs: int) -> Tensor:
    values = torch.randn(sizes.models, inputs, outputs, generator=generator)
    return values / math.sqrt(inputs)


def pooled(inputs: Inputs) -> Tensor:
    """Return mean and deviation over time of the frames' means, and the motion, (E, n, F)."""
    frames = inputs.cells.unflatten(2, (4, -1)).mean(3)
    return torch.cat((frames.mean(2), frames.std(2, correction=0), inputs.motion), dim=-1)


def _probe(sizes: Sizes, generator: Generator) -> Parameters:
    size = 2 * sizes.width + sizes.motion
    return {
        "weight": 0.1 * _linear(sizes, generator, size, sizes.classes),
        "bias": torch.zeros(sizes.models, 1, sizes.classes),
    }


def _probe_logits(p: Parameters, inputs: Inputs) -> Tensor:
    return pooled(inputs) @ p["weight"] + p["bias"]


def _frame(sizes: Sizes, generator: Generator) -> Parameters:
    return {
        "weight": 0.1 * _linear(sizes, generator, sizes.width, sizes.classes),
        "bias": torch.zeros(sizes.models, 1, sizes.classes),
    }


def _frame_logits(p: Parameters, inputs: Inputs) -> Tensor:
    one_frame = inputs.cells[:, :, 8:12].mean(2)
    return one_frame @ p["weight"] + p["bias"]


def _attentive(sizes: Sizes, generator: Generator) -> Parameters:
    return {
        "values": _linear(sizes, generator, sizes.width, WIDTH),
        "places": 0.1 * torch.randn(sizes.models, 1, 16, WIDTH, generator=generator),
        "query": torch.randn(sizes.models, 1, WIDTH, 1, generator=generator) / math.sqrt(WIDTH),
        "motion": _linear(sizes, generator, sizes.motion, WIDTH),
        "weight": 0.1 * _linear(sizes, generator, 2 * WIDTH, sizes.classes),
        "bias": torch.zeros(sizes.models, 1, sizes.classes),
    }


def _attentive_logits(p: Parameters, inputs: Inputs) -> Tensor:
    tokens = inputs.cells @ p["values"][:, None] + p["places"]
    shares = (tokens @ p["query"] / math.sqrt(WIDTH)).softmax(2)
    seen = (shares * tokens).sum(2)
    moved = F.gelu(inputs.motion @ p["motion"])
    return torch.cat((seen, moved), dim=-1) @ p["weight"] + p["bias"]


def _directed(sizes: Sizes, generator: Generator) -> Parameters:
    return {
        "query": _linear(sizes, generator, sizes.width, WIDTH),
        "key": _linear(sizes, generator, sizes.width, WIDTH),
        "values": _linear(sizes, generator, sizes.width, WIDTH),
        "places": 0.1 * torch.randn(sizes.models, 1, 1, 4, WIDTH, generator=generator),
        "motion": _linear(sizes, generator, sizes.motion, WIDTH),
        "weight": 0.1 * _linear(sizes, generator, 2 * WIDTH, sizes.classes),
        "bias": torch.zeros(sizes.models, 1, sizes.classes),
    }


def _directed_logits(p: Parameters, inputs: Inputs) -> Tensor:
    # One sequence of T frames for each cell.
    tokens = inputs.cells.unflatten(2, (4, 4)).transpose(2, 3)  # (E, n, cell, T, d)
    query, key, values = (tokens @ p[name][:, None, None] for name in ("query", "key", "values"))
    values = values + p["places"]
    mixed = values + directed_attention(query + p["places"], key + p["places"], values) / 4
    seen = F.gelu(mixed).mean((2, 3))
    moved = F.gelu(inputs.motion @ p["motion"])
    return torch.cat((seen, moved), dim=-1) @ p["weight"] + p["bias"]


def _semantic(sizes: Sizes, generator: Generator) -> Parameters:
    size, vector = 2 * sizes.width + sizes.motion, sizes.label_vectors.shape[1]
    return {
        "feature": _linear(sizes, generator, size, 2 * WIDTH),
        "vector": _linear(sizes, generator, 2 * WIDTH, vector),
        "weight": 0.1 * _linear(sizes, generator, 2 * WIDTH + vector, sizes.classes),
        "bias": torch.zeros(sizes.models, 1, sizes.classes),
    }


def _semantic_parts(p: Parameters, inputs: Inputs) -> tuple[Tensor, Tensor]:
    z = F.gelu(pooled(inputs) @ p["feature"])
    return F.normalize(z @ p["vector"], dim=-1), z


def _semantic_logits(p: Parameters, inputs: Inputs) -> Tensor:
    return torch.cat(_semantic_parts(p, inputs), dim=-1) @ p["weight"] + p["bias"]


def _semantic_loss(p: Parameters, inputs: Inputs, labels: Tensor, sizes: Sizes) -> Tensor:
    s, _ = _semantic_parts(p, inputs)
    return 1 - (s * sizes.label_vectors[labels]).sum(-1)


PROBE = Head(
    name="probe",
    says="linear, on mean and deviation over time and the motion vector, as marey teach has it",
    build=_probe,
    logits=_probe_logits,
)
FRAME = Head(
    name="one frame",
    says="control: linear, on one frame, no motion",
    build=_frame,
    logits=_frame_logits,
)
ATTENTIVE = Head(
    name="attentive",
    says="one learned query over 16 tokens with their times, and the motion vector",
    build=_attentive,
    logits=_attentive_logits,
)
DIRECTED = Head(
    name="direcformer",
    says="directed attention over the frames of each cell, and the motion vector; class term only",
    build=_directed,
    logits=_directed_logits,
)
SEMANTIC = Head(
    name="sevitar",
    says="[s, z]: a hidden layer z and the predicted vector s of the class's name",
    build=_semantic,
    logits=_semantic_logits,
    extra_loss=_semantic_loss,
)


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Means and deviations of the clips that each model learns from."""

    cells: tuple[Tensor, Tensor]
    """Each (E, 1, 1, d)."""
    motion: tuple[Tensor, Tensor]
    """Each (E, 1, m)."""

    def __call__(self, cells: Tensor, motion: Tensor) -> Inputs:
        """Standardise (n, L, d) and (n, m) for every model."""
        return Inputs(
            cells=(cells - self.cells[0]) / self.cells[1],
            motion=(motion - self.motion[0]) / self.motion[1],
        )


def standard_of(cells: Tensor, motion: Tensor, learns: Tensor) -> Standard:
    """Measure clean features (N, L, d) and (N, m) over the clips that each model learns from.

    Args:
        learns: float, (E, N), 1 where a model learns from a clip.
    """
    share = learns / learns.sum(1, keepdim=True)

    def moments(values: Tensor) -> tuple[Tensor, Tensor]:
        mean = share @ values
        variance = share @ values.square() - mean.square()
        return mean, variance.clamp(min=1e-8).sqrt()

    token = cells.mean(1), cells.square().mean(1)  # over the tokens of a clip
    mean = share @ token[0]
    deviation = (share @ token[1] - mean.square()).clamp(min=1e-8).sqrt()
    motion_mean, motion_deviation = moments(motion)
    return Standard(
        cells=(mean[:, None, None], deviation[:, None, None]),
        motion=(motion_mean[:, None], motion_deviation[:, None]),
    )


def train(
    head: Head,
    sizes: Sizes,
    draw: Callable[[Tensor, Generator], tuple[Tensor, Tensor]],
    standard: Standard,
    labels: Tensor,
    learns: Tensor,
    *,
    seed: int,
) -> Parameters:
    """Train the E models of a head by AdamW on minibatches, and return their parameters.

    Args:
        draw: (clip numbers, generator) -> features (n, L, d) and (n, m).
        labels: int64, (N,).
        learns: float, (E, N), 1 where a model learns from a clip.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: value.requires_grad_(True) for name, value in head.build(sizes, generator).items()
    }
    optimiser = torch.optim.AdamW(
        list(parameters.values()), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, STEPS)
    N = len(labels)
    for _ in range(STEPS):
        rows = torch.randperm(N, generator=generator)[:BATCH]
        inputs = standard(*draw(rows, generator))
        answer = head.logits(parameters, inputs)  # (E, n, K)
        wanted = labels[rows].expand(sizes.models, -1)
        loss = F.cross_entropy(answer.flatten(0, 1), wanted.flatten(), reduction="none")
        loss = loss.view(wanted.shape)
        if head.extra_loss is not None:
            loss = loss + head.extra_loss(parameters, inputs, labels[rows], sizes)
        # The sum over models: each has its own parameters and its own mean.
        weights = learns[:, rows]
        total = ((loss * weights).sum(1) / weights.sum(1).clamp(min=1)).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
    return {name: value.detach() for name, value in parameters.items()}


def adapt(p: Parameters, inputs: Inputs, tested: Tensor) -> Tensor:
    """Return the probe's logits after adapting to the tested clips of one condition, (E, N, K).

    The features' means and deviations over those clips are set to those of training (ViTTA: Lin et
    al., "Video Test-Time Adaptation for Action Recognition", CVPR 2023, aligns them by gradient,
    ours in closed form), then a gain and a shift of every feature lower the entropy of the answers
    (TENT: Wang et al., ICLR 2021). No label is used; all clips of a fold are seen at once.

    Args:
        tested: float, (E, N), 1 where a model is tested on a clip.
    """
    features = pooled(inputs)
    share = (tested / tested.sum(1, keepdim=True))[..., None]
    mean = (share * features).sum(1, keepdim=True)
    deviation = (share * (features - mean).square()).sum(1, keepdim=True).clamp(min=1e-6).sqrt()
    aligned = (features - mean) / deviation

    gain = torch.ones_like(mean).requires_grad_(True)
    shift = torch.zeros_like(mean).requires_grad_(True)
    optimiser = torch.optim.Adam([gain, shift], lr=TENT_LEARNING_RATE)
    for _ in range(TENT_STEPS):
        answer = (aligned * gain + shift) @ p["weight"] + p["bias"]
        entropy = -(answer.softmax(-1) * answer.log_softmax(-1)).sum(-1)
        optimiser.zero_grad()
        (entropy * share[..., 0]).sum().backward()
        optimiser.step()
    with torch.no_grad():
        return (aligned * gain + shift) @ p["weight"] + p["bias"]
