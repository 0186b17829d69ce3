"""Accuracy on actions never trained on: `marey evaluate --unseen`, and the same numbers for class splits.

Classes are held out of training by `data.arguments.unseen_classes`; a label of the evaluated data that the model has no
class for is unseen. Every video is given the label, of all or of the unseen ones, whose name is nearest to ŝ.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from marey.errors import UserError
from marey.inference.zero_shot import label_vectors, similarity
from marey.metrics.accuracy import bootstrap_interval, confusion_matrix, enough_groups, mean_class_accuracy

if TYPE_CHECKING:
    from marey.checkpoints.folder import Checkpoint
    from marey.datasets import DatasetIndex
    from marey.evaluation.classification import EvaluateOptions


def harmonic_mean(seen: float, unseen: float) -> float:
    """Return 2 S U / (S + U), 0 where both are 0 (Xian et al., "Zero-Shot Learning", TPAMI 2018, Eq. 16)."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0


def unseen_accuracies(predicted: Tensor, vectors: Tensor, labels: Tensor, num_seen: int,
                      references: Tensor | None = None) -> dict[str, float | None]:
    """Score predicted label embeddings against the names of seen and unseen classes; means over classes, 0..1.

    "seen", "unseen": every name is a candidate (generalised zero-shot); "harmonic_mean" of the two; "zero_shot": only
    the unseen names are candidates, which has the chance level "chance" = 1 / their number.

    Args:
        predicted: ŝ, (N, E).
        vectors: names, (K, E), the seen classes first.
        labels: int, (N,), places in `vectors`.
        num_seen: how many classes are seen ones.
        references: (R, E) for the correction of hubs, see `marey.inference.zero_shot.similarity`.

    Returns:
        Shares; None for what has no video.
    """
    K = len(vectors)
    scores = similarity(predicted, vectors, references)
    answers, among = scores.argmax(1), scores[:, num_seen:].argmax(1) + num_seen

    def mean(chosen: Tensor, given: Tensor) -> float | None:
        return mean_class_accuracy(confusion_matrix(given[chosen], labels[chosen], K)) if bool(chosen.any()) else None

    seen, unseen = mean(labels < num_seen, answers), mean(labels >= num_seen, answers)
    return {"seen": seen, "unseen": unseen,
            "harmonic_mean": None if seen is None or unseen is None else harmonic_mean(seen, unseen),
            "zero_shot": mean(labels >= num_seen, among), "chance": 1 / (K - num_seen)}


def evaluate_unseen(checkpoint: Checkpoint, data: str | Path, options: EvaluateOptions) -> dict[str, Any]:
    """Return the report of `marey evaluate --unseen`.

    With `options.hubness` the similarities are corrected for hubs (CSLS) with the evaluated videos themselves as
    references: the number then depends on which videos are evaluated together.

    Raises:
        UserError: if every label of the data was trained on, or names cannot be embedded.
    """
    from marey.datasets.open import choose_split

    index = choose_split(data, dataset=options.dataset, split=options.split, split_by=options.split_by)
    seen = list(checkpoint.class_names)
    unseen = sorted({str(sample.label) for sample in index.samples} - set(seen))
    if not unseen:
        raise UserError(f"{data}: the model {checkpoint.source} was trained on all {len(set(seen))} labels of these "
                        "videos; leave some out with 'marey train ... --set data.arguments.unseen_classes=[...]', or "
                        "evaluate without --unseen")
    vectors = label_vectors([*seen, *unseen], checkpoint)
    predicted, kept, unreadable = predict_embeddings(checkpoint, index, options)
    numbers = {name: place for place, name in enumerate([*seen, *unseen])}
    samples = [index.samples[place] for place in kept]
    labels = torch.tensor([numbers[str(sample.label)] for sample in samples])
    groups = [sample.group for sample in samples]
    found = unseen_accuracies(predicted, vectors, labels, len(seen), predicted if options.hubness else None)
    interval = zero_shot_interval(predicted, vectors, labels, len(seen), options, groups)
    text = (f"unseen classes: {', '.join(unseen)}\n"
            f"among unseen names {_percent(found['zero_shot'])} [{_percent(interval[0])}, {_percent(interval[1])}] "
            f"(chance {_percent(found['chance'])}); among all {len(numbers)} names: seen {_percent(found['seen'])}, "
            f"unseen {_percent(found['unseen'])}, harmonic mean {_percent(found['harmonic_mean'])}")
    return {"split": options.split or "".join(index.splits) or None, "manifest_hash": index.manifest_hash,
            "num_videos": len(kept), "seen_classes": seen, "unseen_classes": unseen,
            **{f"{name}_accuracy" if name in ("seen", "unseen", "zero_shot") else name: value
               for name, value in found.items()},
            "zero_shot_interval": list(interval),
            "interval": "95% bootstrap over " + ("groups" if enough_groups(groups) else "videos") + " of this one "
                        "class split; another choice of unseen classes moves the number more",
            "average": "per class", "hubness_correction": "csls" if options.hubness else "none",
            "label_source": (checkpoint.extra or {}).get("label_source"), "unreadable": unreadable,
            "num_unreadable": len(unreadable), "summary": {"text": text}}


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def zero_shot_interval(predicted: Tensor, vectors: Tensor, labels: Tensor, num_seen: int, options: EvaluateOptions,
                       groups: list[str | None]) -> tuple[float, float]:
    """Return the bootstrap interval of the per-class mean among unseen names."""
    scores = similarity(predicted, vectors, predicted if options.hubness else None)
    chosen = labels >= num_seen
    mine = labels[chosen]
    if not len(mine):
        return float("nan"), float("nan")
    right = scores[chosen, num_seen:].argmax(1) + num_seen == mine
    sizes = torch.bincount(mine)[mine].double()                # weights: from a mean over videos to one over classes
    weighed = right.double() * len(mine) / (sizes * len(mine.unique()))
    own = [group for group, keep in zip(groups, chosen.tolist(), strict=True) if keep]
    low, high = bootstrap_interval(weighed, seed=options.seed, groups=own if enough_groups(own) else None)
    return low, min(high, 1.0)


@torch.inference_mode()
def predict_embeddings(checkpoint: Checkpoint, index: DatasetIndex,
                       options: EvaluateOptions) -> tuple[Tensor, list[int], list[dict[str, str]]]:
    """Return ŝ (N, E) of every readable video, the mean over its views, their places, and the unreadable ones.

    Raises:
        UserError: if the model predicts no label embedding, or nothing can be read.
    """
    from marey.datasets.clips import VideoViews
    from marey.evaluation.classification import _outputs

    if checkpoint.preprocess is None:
        raise UserError(f"{checkpoint.source}: no preprocessing; evaluate a checkpoint written by 'marey train'")
    loader = DataLoader(VideoViews(index, checkpoint.preprocess, options.views), batch_size=None,
                        num_workers=options.workers)
    rows, kept, unreadable = [], [], []
    for place, outputs in enumerate(_outputs(checkpoint.model.to(options.device).eval(), loader, options)):
        if isinstance(outputs, str):
            unreadable.append({"video": index.relative_path(index.samples[place]), "error": outputs})
        elif "label_embedding" not in outputs:
            raise UserError(f"{checkpoint.source} has no label-embedding head, which --unseen needs; use marey-mini, "
                            "or train a recipe such as sevitar_ucf101")
        else:
            rows.append(outputs["label_embedding"].mean(0))
            kept.append(place)
    if not rows:
        raise UserError(f"{index.root}: none of its {len(index)} videos can be read (the first: "
                        f"{unreadable[0]['error']})")
    return torch.stack(rows), kept, unreadable
