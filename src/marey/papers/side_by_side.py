"""Training many copies of one small network side by side: one per seed and fold of a table's line.

All copies do the same step at once, as one batched computation (`torch.func.vmap`): a network of
20,000 parameters is too small to fill a processor alone, and Python's share of each
step is paid once. Each copy has its own weights, clips, order of clips and best epoch. What a copy
learns is what it would learn alone, up to the order of sums.

Legend: R copies, B clips of a step, N clips of a part, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from marey.training.config import TrainConfig
from marey.training.optim import build_optimizer, freeze
from marey.training.sampler import SampleStream
from marey.training.schedule import Schedule

Clips = Callable[[int, int, int | None], Tensor]
"""(clip number, seed, epoch, or None in evaluation) -> features of the clip."""


@dataclass(frozen=True)
class Copy:
    """One network to train: its seed and its clips, by number."""

    seed: int
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Trained:
    """What became of one copy."""

    best: Tensor
    """Probabilities (N, K) of the test clips, by the epoch with the lowest validation loss."""
    last: Tensor
    """The same by the last epoch."""
    val_loss: float
    """The lowest mean cross-entropy of the validation clips."""
    train_share: float
    """Share of the training clips that are right after the last epoch."""
    weights: dict[str, Tensor]
    """State of the best epoch."""


def train_copies(
    copies: Sequence[Copy],
    build: Callable[[int], nn.Module],
    clips: Clips,
    labels: Sequence[int],
    config: TrainConfig,
    *,
    evaluate_every: float = 1.0,
    draws: bool = False,
) -> list[Trained]:
    """Train all copies for `config.train.epochs` and answer their test clips.

    Args:
        build: seed -> network with its first weights; the parameters `config.model.freeze` names
            stay as they are.
        clips: gives the features of a clip.
        labels: class of every clip, by number.
        evaluate_every: epochs between two evaluations of the validation clips.
        draws: whether training clips are drawn anew in every epoch.
    """
    models = [build(copy.seed) for copy in copies]
    stacked = StackedModels(models, config)
    settings, truth = config.train, torch.tensor(labels)
    longest = max(len(copy.train) for copy in copies)
    B = settings.batch_size
    total_steps = settings.max_steps or max(1, round(settings.epochs * longest / B))
    between = max(1, round(evaluate_every * longest / B))
    optimizer = build_optimizer(stacked.parameters_module, config.optim)
    schedule = Schedule(optimizer, config.optim, total_steps, longest / B)
    streams = [SampleStream(len(copy.train), copy.seed) for copy in copies]
    plain = Plain(clips)

    best = stacked.state()
    lowest = torch.full((len(copies),), torch.inf)
    for step in range(total_steps):
        rows, numbers = [], []
        for copy, stream in zip(copies, streams, strict=True):
            keys = stream.keys(step * B, (step + 1) * B)
            chosen = [copy.train[i] for _, i in keys]
            numbers.append(chosen)
            if draws:
                drawn = zip(keys, chosen, strict=True)
                rows.append(
                    torch.stack([clips(number, copy.seed, key[0]) for key, number in drawn])
                )
            else:
                rows.append(plain.of(chosen))
        logits = stacked.logits(torch.stack(rows))  # (R, B, K)
        targets = truth[torch.tensor(numbers)]
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / B
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        if (step + 1) % between == 0 or step + 1 == total_steps:
            found = stacked.evaluate([copy.val for copy in copies], plain)
            losses = torch.stack(
                [
                    F.nll_loss(probs.clamp_min(1e-12).log(), truth[list(copy.val)])
                    for probs, copy in zip(found, copies, strict=True)
                ]
            )
            is_better = losses < lowest
            lowest = torch.where(is_better, losses, lowest)
            best = stacked.merged(best, is_better)

    trained = stacked.evaluate([copy.train for copy in copies], plain)
    last = stacked.evaluate([copy.test for copy in copies], plain)
    stacked.load(best)
    tested = stacked.evaluate([copy.test for copy in copies], plain)
    return [
        Trained(
            best=tested[r],
            last=last[r],
            val_loss=float(lowest[r]),
            train_share=float((trained[r].argmax(1) == truth[list(copy.train)]).double().mean()),
            weights={name: value[r].clone() for name, value in best.items()},
        )
        for r, copy in enumerate(copies)
    ]


class Plain:
    """The clips as evaluation sees them, made once."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips
        self.made: dict[int, Tensor] = {}

    def of(self, numbers: Sequence[int]) -> Tensor:
        """Return the clips of these numbers, stacked."""
        for number in numbers:
            if number not in self.made:
                self.made[number] = self.clips(number, 0, None)
        return torch.stack([self.made[number] for number in numbers])


class StackedModels:
    """R networks of one architecture, their weights stacked along a first axis.

    Args:
        models: the networks with their first weights; without buffers that change.
        config: says what stays frozen.
    """

    def __init__(self, models: Sequence[nn.Module], config: TrainConfig) -> None:
        self.template = models[0].eval()  # nothing random: the networks have no dropout
        freeze(self.template, config.model.freeze)
        trained = {name for name, p in self.template.named_parameters() if p.requires_grad}
        states = [dict(model.named_parameters()) for model in models]
        self.weights = {
            name: nn.Parameter(
                torch.stack([state[name].detach() for state in states]),
                requires_grad=name in trained,
            )
            for name in states[0]
        }
        self.parameters_module = nn.ParameterDict(
            {name.replace(".", "/"): weight for name, weight in self.weights.items()}
        )

    def logits(self, clips: Tensor) -> Tensor:
        """Return (R, B, K) for each network's own clips (R, B, ...)."""

        def one(weights: dict[str, Tensor], own: Tensor) -> Tensor:
            outputs: Any = functional_call(self.template, weights, (own,))
            return outputs["logits"]

        # The fused kernel of attention has no batched form; products and softmax have.
        with sdpa_kernel(SDPBackend.MATH):
            logits: Tensor = vmap(one)(dict(self.weights), clips)
        return logits

    def evaluate(self, parts: Sequence[Sequence[int]], plain: Plain) -> list[Tensor]:
        """Return the probabilities (N, K) of each network's own clips.

        Gradients stay on: without them a block keeps a folded copy of its weights by their address,
        which weights of a batched computation have not.
        """
        longest = max(len(part) for part in parts)
        padded = [[*part, *[part[0]] * (longest - len(part))] for part in parts]
        found = []
        for start in range(0, longest, 24):
            asked = torch.stack([plain.of(part[start : start + 24]) for part in padded])
            found.append(self.logits(asked).detach().softmax(-1))
        together = torch.cat(found, dim=1)
        return [probs[: len(part)] for probs, part in zip(together, parts, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """Return a copy of all weights."""
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    def merged(self, before: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
        """Return the weights of the chosen networks (R,) as they are now, of the others as
        before."""
        found = {}
        for name, weight in self.weights.items():
            mask = chosen.view(-1, *[1] * (weight.ndim - 1))
            found[name] = torch.where(mask, weight.detach(), before[name])
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Put weights back."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(state[name])
