"""Accuracy on actions never trained on: `marey evaluate --unseen`, and the same numbers for class
splits.

Classes are held out of training by `data.unseen_classes`; a label of the evaluated data that the
model has no class for is unseen. Every video is given the label, of all or of the unseen ones,
whose name is nearest to ŝ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.inference.answers import Answers
from marey.inference.zero_shot import label_vectors, similarity
from marey.metrics.accuracy import (
    confusion_matrix,
    mean_class_accuracy,
)
from marey.metrics.intervals import interval_unit, proportion_interval


def harmonic_mean(seen: float, unseen: float) -> float:
    """Return 2 S U / (S + U), 0 where both are 0 (Xian et al., "Zero-Shot Learning", TPAMI 2018,
    Eq. 16)."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0


def unseen_accuracies(
    predicted: Tensor,
    vectors: Tensor,
    labels: Tensor,
    num_seen: int,
    references: Tensor | None = None,
) -> dict[str, float | None]:
    """Score predicted label embeddings against the names of seen and unseen classes; means over
    classes, 0..1.

    "seen", "unseen": every name is a candidate (generalised zero-shot); "harmonic_mean" of the two;
    "zero_shot": only
    the unseen names are candidates, which has the chance level "chance" = 1 / their number.

    Args:
        predicted: ŝ, (N, E).
        vectors: names, (K, E), the seen classes first.
        labels: int, (N,), row of each video's name in `vectors`.
        num_seen: how many classes are seen ones.
        references: (R, E) for the correction of hubs, see `marey.inference.zero_shot.similarity`.

    Returns:
        Shares; None for what has no video.
    """
    K = len(vectors)
    scores = similarity(predicted, vectors, references)
    answers, among = scores.argmax(1), scores[:, num_seen:].argmax(1) + num_seen

    def mean(chosen: Tensor, given: Tensor) -> float | None:
        return (
            mean_class_accuracy(confusion_matrix(given[chosen], labels[chosen], K))
            if bool(chosen.any())
            else None
        )

    seen, unseen = mean(labels < num_seen, answers), mean(labels >= num_seen, answers)
    return {
        "seen": seen,
        "unseen": unseen,
        "harmonic_mean": None if seen is None or unseen is None else harmonic_mean(seen, unseen),
        "zero_shot": mean(labels >= num_seen, among),
        "chance": 1 / (K - num_seen),
    }


def generalised_area(
    predicted: Tensor, vectors: Tensor, labels: Tensor, num_seen: int
) -> float | None:
    """Return the area under the curve of unseen over seen accuracy, 0..1, as seen names are
    handicapped more and more.

    Chao et al., "An Empirical Study and Analysis of Generalized Zero-Shot Learning", ECCV 2016
    (AUSUC): a constant is taken off the similarity of every seen name, from none that leaves out
    the unseen to one that leaves out the seen. It needs no choice of the constant, and is not 0
    where the plain ranking never names an unseen class.

    Args:
        predicted, vectors, labels, num_seen: as `unseen_accuracies`.

    Returns:
        The area by the trapezoidal rule; None without videos of both kinds.
    """
    scores = similarity(predicted, vectors)
    of_seen, of_unseen = labels < num_seen, labels >= num_seen
    if not bool(of_seen.any()) or not bool(of_unseen.any()):
        return None
    best_seen, seen_answer = scores[:, :num_seen].max(1)
    best_unseen, unseen_answer = scores[:, num_seen:].max(1)
    lead = best_seen - best_unseen  # a seen name is answered where this exceeds the handicap
    right_if_seen = seen_answer == labels
    right_if_unseen = unseen_answer + num_seen == labels

    sizes = torch.bincount(labels, minlength=len(vectors)).double()
    share = (1 / sizes)[labels]  # from a sum over videos to a mean over classes
    seen_share = share / share[of_seen].sum()
    unseen_share = share / share[of_unseen].sum()
    handicaps = torch.cat((lead.min()[None] - 1, lead.sort().values))
    is_seen = lead > handicaps[:, None]  # (H, N)
    seen = (is_seen & right_if_seen & of_seen).double() @ seen_share
    unseen = (~is_seen & right_if_unseen & of_unseen).double() @ unseen_share
    return float(torch.trapezoid(unseen.flip(0), seen.flip(0)))


def unseen_classes(checkpoint: Checkpoint, index: DatasetIndex) -> list[str]:
    """Return the labels of a data set that a model was not trained on, sorted.

    Raises:
        UserError: if there are none.
    """
    seen = set(checkpoint.class_names)
    unseen = sorted({str(sample.label) for sample in index.samples} - seen)
    if not unseen:
        raise UserError(
            f"{index.root}: the model {checkpoint.source} was trained on all {len(seen)} labels of "
            "these videos; leave some out with 'marey train ... --set data.unseen_classes=[...]', "
            "or evaluate without --unseen"
        )
    return unseen


def unseen_report(
    answers: Answers,
    checkpoint: Checkpoint,
    unseen: list[str],
    *,
    hubness: bool = False,
) -> dict[str, Any]:
    """Score stored label embeddings against the names of seen and unseen classes.

    Args:
        unseen: labels of the data that the model has no class for.
        hubness: correct the similarities for hubs (CSLS), with the evaluated videos themselves as
            references: the number then depends on which videos are evaluated together.

    Raises:
        UserError: if the model predicts no label embedding, or names cannot be embedded.
    """
    if answers.label_embedding is None:
        raise UserError(
            f"{checkpoint.source} has no label-embedding head, which --unseen needs; use "
            "marey-mini-rgb, or train a recipe such as sevitar_ucf101"
        )
    seen = list(checkpoint.class_names)
    vectors = label_vectors([*seen, *unseen], checkpoint)
    predicted = answers.label_embedding.mean(1)  # (N, E)
    numbers = {name: number for number, name in enumerate([*seen, *unseen])}
    labels = torch.tensor([numbers[str(label)] for label in answers.labels])
    references = predicted if hubness else None

    found = unseen_accuracies(predicted, vectors, labels, len(seen), references)
    interval = zero_shot_interval(predicted, vectors, labels, len(seen), references, answers.groups)
    text = (
        f"unseen classes: {', '.join(unseen)}\n"
        f"among unseen names {_percent(found['zero_shot'])} [{_percent(interval[0])}, "
        f"{_percent(interval[1])}] "
        f"(chance {_percent(found['chance'])}); among all {len(numbers)} names: seen "
        f"{_percent(found['seen'])}, "
        f"unseen {_percent(found['unseen'])}, harmonic mean {_percent(found['harmonic_mean'])}"
    )
    shares = {
        f"{name}_accuracy" if name in ("seen", "unseen", "zero_shot") else name: value
        for name, value in found.items()
    }
    return {
        "num_videos": len(answers.videos),
        "seen_classes": seen,
        "unseen_classes": unseen,
        **shares,
        "zero_shot_interval": list(interval),
        "interval": f"95% over {interval_unit(answers.groups)}, of this one class split; "
        "another choice of unseen classes moves the number more",
        "average": "per class",
        "hubness_correction": "csls" if hubness else "none",
        "label_source": checkpoint.extra.get("label_source"),
        "unreadable": answers.unreadable,
        "num_unreadable": len(answers.unreadable),
        "summary": {"text": text},
    }


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def zero_shot_interval(
    predicted: Tensor,
    vectors: Tensor,
    labels: Tensor,
    num_seen: int,
    references: Tensor | None,
    groups: list[str | None],
) -> tuple[float, float]:
    """Return the interval of the per-class mean among unseen names, arguments as
    `unseen_accuracies`."""
    scores = similarity(predicted, vectors, references)
    chosen = labels >= num_seen
    mine = labels[chosen]
    if not len(mine):
        return float("nan"), float("nan")
    right = scores[chosen, num_seen:].argmax(1) + num_seen == mine
    sizes = torch.bincount(mine)[
        mine
    ].double()  # weights: from a mean over videos to one over classes
    own = [group for group, keep in zip(groups, chosen.tolist(), strict=True) if keep]
    return proportion_interval(right, own, weights=1 / sizes)
