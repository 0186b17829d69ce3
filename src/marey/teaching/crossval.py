"""Grouped cross-validation of probes: every choice is made without the videos that it is scored on.

    found = cross_validate([candidate], labels, groups, class_names)
    found.answers.logits        # (N, 1, K), by the fold that never saw a video's group

In every outer fold, inner folds of the other groups choose the encoders and the strength of the
penalty. Encoders whose inner accuracy is within one standard error of the best one answer together,
by the mean of their logits, which is again one linear map of all of them side by side (the rule of
one standard error: Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from marey.features.video_vectors import VECTOR_DIMS
from marey.features.videos import parts_of
from marey.inference.answers import Answers
from marey.metrics.accuracy import confusion_matrix
from marey.metrics.intervals import interval_unit, proportion_interval
from marey.teaching.folds import MAX_FOLDS, folds_of
from marey.teaching.logistic import LOGISTIC_STRENGTHS, KernelLogistic
from marey.teaching.regression import KERNELS, Regression
from marey.teaching.ridge import STRENGTHS, KernelRidge, kernels

INNER_FOLDS = 5
KINDS = ("ridge", "logistic")
"""Regressions that `method="probe"` compares."""


@dataclass(frozen=True)
class Candidate:
    """Features that a probe may read."""

    name: str
    """Of the encoder; the names of the parts of a sum are joined by "+"."""
    features: Tensor
    """(N, V, Q)."""
    blocks: list[int]
    """Widths of its parts, see `ridge.standardise`."""

    def parts(self) -> list[tuple[str, Tensor]]:
        """Return name and features of each part; candidates of one data set share what has one
        name."""
        names = parts_of(self.name)
        if len(names) != len(self.blocks):
            names = [f"{self.name}, part {number}" for number in range(len(self.blocks))]
        return list(zip(names, self.features.split(self.blocks, dim=2), strict=True))


def candidate_kernels(
    candidates: Sequence[Candidate], known: Tensor, asked: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `ridge.kernels` of every candidate; those of a part are made once.

    Args:
        known, asked: int64, rows of the features.
    """
    views = {candidate.features.shape[1] for candidate in candidates}
    made: dict[str, tuple[Tensor, Tensor]] = {}
    for candidate in candidates:
        found = []
        for name, part in candidate.parts():
            shared = name if len(views) == 1 else f"{name}, {part.shape[1]} views"
            if shared not in made:
                made[shared] = kernels(part[known], part[asked])
            found.append(made[shared])
        grams, crosses = zip(*found, strict=True)
        yield sum(grams) / len(grams), sum(crosses) / len(crosses)


@dataclass(frozen=True)
class Choice:
    """The best candidate and its strength, with the accuracy they were chosen by."""

    candidate: int
    strength: float
    accuracy: float
    kind: str = "ridge"
    """"ridge" or "logistic"."""
    others: tuple[tuple[int, float], ...] = ()
    """Number and strength of candidates about as good, whose logits are averaged with its own."""

    @property
    def members(self) -> tuple[tuple[int, float], ...]:
        """Number and strength of every candidate that answers, the best first."""
        return ((self.candidate, self.strength), *self.others)

    def named(self, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Return "encoder" and "strength" of every member, as JSON types."""
        return [
            {"encoder": candidates[number].name, "strength": strength}
            for number, strength in self.members
        ]


def union_of(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate of all parts of some candidates, each once, an encoder of clips first,
    as `VideoEncoder` puts them together."""
    if len(candidates) == 1:
        return candidates[0]
    parts = {name: part for candidate in candidates for name, part in candidate.parts()}
    names = sorted(parts, key=lambda name: name in VECTOR_DIMS)  # stable
    return Candidate(
        "+".join(names),
        torch.cat([parts[name] for name in names], dim=2),
        [parts[name].shape[2] for name in names],
    )


@dataclass(kw_only=True)
class CrossValidated:
    """What cross-validation found."""

    answers: Answers
    """Out-of-fold: "logits" (N, 1, K), "embedding" (N, 1, Q) of the candidates chosen on all
    videos side by side, "fold" (N,)."""
    choice: Choice
    """On all videos."""
    tried: dict[str, float]
    """Candidate -> accuracy of its best strength, on all videos."""
    encoder: str
    """Name of the candidates chosen on all videos, side by side."""
    averaged: list[dict[str, Any]] = field(default_factory=list)
    """"encoder" and "strength" of each of them."""
    folds: list[dict[str, Any]] = field(default_factory=list)
    """One row per outer fold: groups, videos, accuracy, what was chosen in it."""

    @property
    def correct(self) -> Tensor:
        """(N,) bool."""
        return self.predicted == self.targets

    @property
    def predicted(self) -> Tensor:
        """int64 (N,)."""
        return self.answers.logits[:, 0].argmax(1)

    @property
    def targets(self) -> Tensor:
        """int64 (N,)."""
        names = self.answers.class_names
        return torch.tensor([names.index(str(label)) for label in self.answers.labels])

    def summary(self) -> dict[str, Any]:
        """Return accuracy with its interval, confusion matrix and folds, as JSON types."""
        groups = self.answers.groups
        low, high = proportion_interval(self.correct, groups)
        names = self.answers.class_names
        return {
            "accuracy": self.correct.double().mean().item(),
            "interval": [low, high],
            "interval_over": interval_unit(groups),
            "num_videos": len(self.answers.videos),
            "num_groups": len(set(groups)),
            "encoder": self.encoder,
            "strength": self.choice.strength,
            "averaged": self.averaged,
            "kind": self.choice.kind,
            "candidates": self.tried,
            "confusion": {
                "classes": names,
                "counts": confusion_matrix(self.predicted, self.targets, len(names)).tolist(),
            },
            "folds": self.folds,
        }


def choose(
    candidates: Sequence[Candidate],
    rows: Tensor,
    labels: Sequence[str],
    groups: Sequence[str],
    class_names: Sequence[str],
    *,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> tuple[Choice, list[float]]:
    """Choose candidates and strengths by the accuracy of held-out groups among some videos.

    Of equal accuracies the candidate named first and the stronger penalty win. Candidates are
    chosen by ridge regression; where one stands alone, logistic regression of it is taken if it is
    better.

    Args:
        rows: int64, the videos that may be used.
        kinds: "ridge", and "logistic" where that is to be compared.

    Returns:
        The choice, and the best accuracy of each candidate.
    """
    numbers = torch.tensor([class_names.index(label) for label in labels])
    part = _inner_folds(rows, labels, groups, seed)
    num_folds = int(part.max()) + 1
    choices = best_strengths(candidates, rows, labels, groups, class_names, seed=seed)
    choice = averaged_choice(choices, len(rows))
    candidate_number = choice.candidate
    if "logistic" in kinds and num_folds > 1 and not choice.others:
        right = torch.zeros(len(LOGISTIC_STRENGTHS))
        for fold in range(num_folds):
            known, held = rows[part != fold], rows[part == fold]
            (gram, cross), *_ = candidate_kernels([candidates[candidate_number]], known, held)
            logistic = KernelLogistic(gram, numbers[known], len(class_names))
            for s, logits in enumerate(logistic.logits_of(cross)):
                right[s] += int((logits.argmax(1) == numbers[held]).sum())
        s = len(right) - 1 - int(right.flip(0).argmax())
        if float(right[s]) / len(rows) > choice.accuracy:
            accuracy_there = float(right[s]) / len(rows)
            choice = Choice(candidate_number, LOGISTIC_STRENGTHS[s], accuracy_there, "logistic")
    return choice, [found.accuracy for found in choices]


def averaged_choice(choices: Sequence[Choice], num_videos: int) -> Choice:
    """Return the best choice, the first of equal ones, with all others within one standard error of
    its accuracy beside it.

    Args:
        choices: of each candidate, by ridge regression.
        num_videos: that the accuracies rest on.
    """
    best = max(choices, key=lambda found: found.accuracy)
    least = best.accuracy - (best.accuracy * (1 - best.accuracy) / num_videos) ** 0.5
    others = tuple(
        (found.candidate, found.strength)
        for found in choices
        if found.candidate != best.candidate and found.accuracy >= least
    )
    return replace(best, others=others)


def best_strengths(
    candidates: Sequence[Candidate],
    rows: Tensor,
    labels: Sequence[str],
    groups: Sequence[str],
    class_names: Sequence[str],
    *,
    seed: int = 0,
) -> list[Choice]:
    """Return the best strength of ridge regression for each candidate, arguments as `choose`."""
    numbers = torch.tensor([class_names.index(label) for label in labels])
    part = _inner_folds(rows, labels, groups, seed)
    num_folds = int(part.max()) + 1
    correct = torch.zeros(len(candidates), len(STRENGTHS))
    for fold in range(num_folds if num_folds > 1 else 0):
        known, held = rows[part != fold], rows[part == fold]
        for number, (gram, cross) in enumerate(candidate_kernels(candidates, known, held)):
            ridge = KernelRidge(gram, numbers[known], len(class_names))
            for s, logits in enumerate(ridge.logits_of(cross)):
                correct[number, s] += int((logits.argmax(1) == numbers[held]).sum())
    best = (correct / len(rows)).flip(1).max(1)  # the last of equal strengths
    places = [len(STRENGTHS) - 1 - place for place in best.indices.tolist()]
    if num_folds == 1:  # nothing can be held out
        places = [STRENGTHS.index(0.1)] * len(candidates)
    return [
        Choice(number, STRENGTHS[place], accuracy)
        for number, (place, accuracy) in enumerate(zip(places, best.values.tolist(), strict=True))
    ]


def linear_map(
    members: Sequence[tuple[Candidate, float]],
    labels: Tensor,
    num_classes: int,
    *,
    kind: str = "ridge",
) -> tuple[Tensor, Tensor]:
    """Fit a regression for each candidate on all videos and return the mean of their logits as one
    linear map: weight (K, Q) and bias (K,) for the features of `union_of` the candidates.

    Args:
        members: candidates of the same N videos, each with its strength.
        labels: int64 (N,).
        kind: "ridge" or "logistic".
    """
    union = union_of([candidate for candidate, _ in members])
    ends = torch.tensor(union.blocks).cumsum(0).tolist()
    first_of = dict(zip([name for name, _ in union.parts()], [0, *ends], strict=False))
    weight = torch.zeros(num_classes, union.features.shape[2], dtype=torch.double)
    bias = torch.zeros(num_classes, dtype=torch.double)
    for candidate, strength in members:
        fitted = Regression(kind, candidate.features, labels, num_classes, candidate.blocks)
        own_weight, own_bias = fitted.linear(strength)
        own_parts = own_weight.split(candidate.blocks, dim=1)
        for (name, _), part in zip(candidate.parts(), own_parts, strict=True):
            weight[:, first_of[name] : first_of[name] + part.shape[1]] += part / len(members)
        bias += own_bias / len(members)
    return weight, bias


def _inner_folds(rows: Tensor, labels: Sequence[str], groups: Sequence[str], seed: int) -> Tensor:
    return folds_of(
        [labels[row] for row in rows.tolist()],
        [groups[row] for row in rows.tolist()],
        INNER_FOLDS,
        seed,
    )


def cross_validate(
    candidates: Sequence[Candidate],
    labels: Sequence[str],
    groups: Sequence[str],
    class_names: Sequence[str],
    *,
    videos: Sequence[str] | None = None,
    folds: Tensor | None = None,
    num_folds: int = MAX_FOLDS,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    name: str = "probe",
) -> CrossValidated:
    """Answer every video by a probe that never saw its group.

    Args:
        candidates: features of the same N videos by several encoders.
        labels, groups: of the videos.
        class_names: name of each logit.
        videos: names; None numbers them.
        folds: int64 (N,), the outer fold of every video; None deals the groups out.
        num_folds: outer folds, where they are dealt out.
        kinds: see `choose`.
    """
    names = list(class_names)
    numbers = torch.tensor([names.index(label) for label in labels])
    folds = folds_of(labels, groups, num_folds, seed) if folds is None else folds
    logits = torch.zeros(len(labels), len(names))
    table = []
    for fold in sorted(set(folds.tolist())):
        known = (folds != fold).nonzero()[:, 0]
        held = (folds == fold).nonzero()[:, 0]
        choice, _ = choose(candidates, known, labels, groups, names, kinds=kinds, seed=seed)
        members = [candidates[number] for number, _ in choice.members]
        kernels = candidate_kernels(members, known, held)
        for (_, strength), (gram, cross) in zip(choice.members, kernels, strict=True):
            regression = KERNELS[choice.kind](gram, numbers[known], len(names))
            logits[held] += regression.logits_of(cross, [strength])[0].float() / len(members)
        table.append(
            {
                "fold": fold,
                "groups": sorted({groups[row] for row in held.tolist()}),
                "videos": len(held),
                "accuracy": (logits[held].argmax(1) == numbers[held]).double().mean().item(),
                "averaged": choice.named(candidates),
                "kind": choice.kind,
            }
        )
    everything = torch.arange(len(labels))
    choice, accuracies = choose(
        candidates, everything, labels, groups, names, kinds=kinds, seed=seed
    )
    chosen = union_of([candidates[number] for number, _ in choice.members])
    answers = Answers(
        model=name,
        class_names=names,
        videos=list(videos or map(str, range(len(labels)))),
        labels=list(labels),
        groups=list(groups),
        outputs={
            "logits": logits[:, None],
            "embedding": chosen.features.mean(1, keepdim=True).float(),
            "fold": folds,
        },
    )
    return CrossValidated(
        answers=answers,
        choice=choice,
        encoder=chosen.name,
        averaged=choice.named(candidates),
        tried={
            candidate.name: accuracy
            for candidate, accuracy in zip(candidates, accuracies, strict=True)
        },
        folds=table,
    )


def learning_curve(
    members: Sequence[tuple[Candidate, float]],
    labels: Sequence[str],
    folds: Tensor,
    class_names: Sequence[str],
    *,
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    draws: int = 5,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the accuracy on held-out folds after some examples a class, drawn at random.

    Sizes that any class of any training part cannot give are left out.

    Args:
        members: candidates with their strengths, whose logits are averaged.

    Returns:
        Rows of "shots", "accuracy" (mean over draws), "std", "lowest".
    """
    names = list(class_names)
    numbers = torch.tensor([names.index(label) for label in labels])
    generator = torch.Generator().manual_seed(seed)
    fold_numbers = sorted(set(folds.tolist()))
    smallest = min(
        int(torch.bincount(numbers[folds != fold], minlength=len(names)).min())
        for fold in fold_numbers
    )
    rows = []
    for count in [number for number in shots if number <= smallest]:
        accuracies = []
        for _ in range(draws):
            correct = 0
            for fold in fold_numbers:
                known = (folds != fold).nonzero()[:, 0]
                known = known[torch.randperm(len(known), generator=generator)]
                drawn = torch.cat([known[numbers[known] == k][:count] for k in range(len(names))])
                held = (folds == fold).nonzero()[:, 0]
                logits = torch.zeros(len(held), len(names), dtype=torch.double)
                for candidate, strength in members:
                    ridge = Regression(
                        "ridge",
                        candidate.features[drawn],
                        numbers[drawn],
                        len(names),
                        candidate.blocks,
                    )
                    logits += ridge.logits(candidate.features[held], strength)
                correct += int((logits.argmax(1) == numbers[held]).sum())
            accuracies.append(correct / len(labels))
        values = torch.tensor(accuracies, dtype=torch.double)
        rows.append(
            {
                "shots": count,
                "accuracy": values.mean().item(),
                "std": values.std().item(),
                "lowest": values.min().item(),
                "draws": draws,
            }
        )
    return rows
