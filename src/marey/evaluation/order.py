"""Order accuracy, and how much a model's answers depend on the order of the frames.

The two questions of Truong et al., "DirecFormer", CVPR 2022, section 1: is a shuffled clip still
given the same label (then the model does not use the order), and can the frames be put back so that
the answer returns? Both are computed from stored answers on shuffled clips
(`AnswerOptions.shuffles`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from marey.checkpoints.folder import Checkpoint
from marey.datasets.index import DatasetIndex
from marey.errors import UserError
from marey.inference.answers import AnswerOptions, Answers, Tick, answer_videos
from marey.metrics.intervals import difference_interval
from marey.metrics.order import (
    chance_order_accuracy,
    chance_up_to_direction,
    mean_with_interval,
    order_accuracy,
    order_measures,
)
from marey.order.correction import NoTemporalAttentionError, read_order
from marey.order.path import shortest_path
from marey.training.config import TrainConfig

FEWEST_CLIPS = 50
"""Number of clips from which a mean OrderAcc is worth quoting (with 4 shuffles each: about 2
percentage points)."""


def recovered_paths(answers: Answers, method: str = "path") -> Tensor:
    """Return the order recovered for every shuffled clip, int64 (N, S, T).

    Args:
        answers: made with shuffles.
        method: one of `METHODS`, see `recover_order`.

    Raises:
        UserError: if the model has no temporal attention, or the method is unknown.
    """
    if "order_weights" not in answers.outputs:
        raise NoTemporalAttentionError(
            f"{answers.model}: gives no temporal attention, so it cannot recover an order; "
            "use a model with divided directed attention, such as marey-mini-order"
        )
    weights = answers.outputs["order_weights"]  # (N, S, T, T)
    distances = shuffled_distances(answers)
    apart = None if distances is None else distances.flatten(0, 1)
    return read_order(weights.flatten(0, 1), method, apart).unflatten(0, weights.shape[:2])


def shuffled_distances(answers: Answers) -> Tensor | None:
    """Return how different the frames of every shuffled clip look, (N, S, T, T); None where that
    was not stored."""
    distances = answers.outputs.get("frame_distances")  # (N, T, T), in the clip's own order
    if distances is None:
        return None
    order = answers.outputs["order"]  # (N, S, T)
    clip = torch.arange(len(order))[:, None, None, None]
    return distances[clip, order[..., :, None], order[..., None, :]]


def measure_order(answers: Answers, method: str = "path") -> dict[str, Any]:
    """Return OrderAcc over clips, each shuffled several times.

    The permutations are drawn uniformly from all T!, never from a training set, with one seed for
    all models ("we set the same random seed", section 4.3). Clips with repeated frames are left out
    and counted.

    Args:
        answers: made with shuffles, by a model with temporal attention.
        method: see `recover_order`.

    Returns:
        "order_accuracy" (mean, 0..1), "interval" (95%, over clips), "chance", "clips", "shuffles",
        "left_out", "seed", "method"; of the same paths "up_to_direction" with its "..._chance" and
        "direction_right" (`order_measures`, chance .5), each with "..._interval"; and "appearance",
        the untrained baseline: the shortest path through the frames as they look, with a coin flip
        for its direction.

    Raises:
        UserError: if no clip is left, or as `recovered_paths`.
    """
    distinct = answers.outputs.get("distinct", torch.zeros(0, dtype=torch.bool))
    left_out = int((~distinct).sum())
    if not bool(distinct.any()):
        raise UserError(
            f"no clip to measure the order on ({left_out} left out for repeated frames)"
        )
    paths, orders = recovered_paths(answers, method)[distinct], answers.outputs["order"][distinct]
    N, S, T = orders.shape
    measured = order_measures(paths.flatten(0, 1), orders.flatten(0, 1))
    means = {name: mean_with_interval(values.view(N, S)) for name, values in measured.items()}
    mean, interval = means["order_accuracy"]
    return {
        "order_accuracy": mean,
        "interval": list(interval),
        "chance": chance_order_accuracy(T),
        "up_to_direction": means["up_to_direction"][0],
        "up_to_direction_interval": list(means["up_to_direction"][1]),
        "up_to_direction_chance": chance_up_to_direction(T),
        "direction_right": means["direction_right"][0],
        "direction_right_interval": list(means["direction_right"][1]),
        "appearance": measure_appearance(answers),
        "clips": N,
        "shuffles": S,
        "left_out": left_out,
        "seed": answers.options["seed"],
        "method": method,
    }


def measure_appearance(answers: Answers) -> dict[str, Any] | None:
    """Return what an untrained baseline recovers: the shortest path through the frames as they
    look, in either direction with equal chance; None where distances were not stored.

    Returns:
        "order_accuracy" with "interval", "up_to_direction".
    """
    distances = shuffled_distances(answers)
    if distances is None:
        return None
    distinct = answers.outputs["distinct"]
    orders = answers.outputs["order"][distinct]
    path = shortest_path(distances[distinct].flatten(0, 1))
    forwards = order_measures(path, orders.flatten(0, 1))
    backwards = order_accuracy(path.flip(1), orders.flatten(0, 1))
    flipped = ((forwards["order_accuracy"] + backwards) / 2).view(orders.shape[:2])
    mean, interval = mean_with_interval(flipped)
    return {
        "order_accuracy": mean,
        "interval": list(interval),
        "up_to_direction": float(forwards["up_to_direction"].mean()),
    }


def backwards_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the classes that are recordings played backwards, as the checkpoint's configuration
    names them."""
    saved = checkpoint.extra.get("config")
    return () if saved is None else TrainConfig.from_dict(saved).objective.order.backwards


def describe_order_accuracy(result: dict[str, Any]) -> str:
    """Say a result of `measure_order` in one line, always beside its chance level."""
    low, high = result["interval"]
    few = (
        ""
        if result["clips"] >= FEWEST_CLIPS
        else f", fewer than {FEWEST_CLIPS} clips: a rough number"
    )
    baseline = result.get("appearance")
    untrained = (
        ""
        if baseline is None
        else f" and {baseline['order_accuracy']:.1%} by appearance alone, untrained"
    )
    return (
        f"OrderAcc {result['order_accuracy']:.1%} [{low:.1%}, {high:.1%}] against "
        f"{result['chance']:.2%} by chance{untrained} "
        f"({result['clips']} clips x {result['shuffles']} shuffles{few}); direction right in "
        f"{result['direction_right']:.1%}"
    )


def answer_reliance(
    checkpoint: Checkpoint,
    index: DatasetIndex,
    options: AnswerOptions,
    *,
    corrector: Checkpoint | None = None,
    tick: Tick | None = None,
) -> Answers:
    """Answer ordered, shuffled, and shuffled-then-corrected clips of a data set.

    Args:
        checkpoint: any model that takes clips, also `hf:` and `torchvision:`.
        options: with shuffles.
        corrector: the model that puts shuffled frames back, from the same frames under its own
            preprocessing. None takes the model itself where it gives temporal attention, else
            nothing is corrected.

    Raises:
        UserError: if the corrector takes another number of frames or has no temporal attention, or
            no video can be read.
    """
    options = replace(options, corrected=True)
    if corrector is None:
        return answer_videos(checkpoint, index, options, tick=tick)
    sampling = checkpoint.clip_preprocess.sampling
    T, U = sampling.num_frames, corrector.clip_preprocess.sampling.num_frames
    if T != U:
        raise UserError(
            f"the model takes {T} frames and the corrector {U}; name a corrector of {T} frames"
        )
    same_frames = replace(
        corrector, preprocess=replace(corrector.clip_preprocess, sampling=sampling)
    )
    paths = recovered_paths(answer_videos(same_frames, index, replace(options, corrected=False)))
    return answer_videos(checkpoint, index, options, paths=paths, tick=tick)


def measure_reliance(answers: Answers) -> dict[str, Any]:
    """Return how much the answers depend on the order of the frames.

    Args:
        answers: made with shuffles; videos whose label is no class of the model count for the
            agreement only.

    Returns:
        "ordered_accuracy", "shuffled_accuracy", "corrected_accuracy", "order_reliance" (ordered -
        shuffled) with "order_reliance_interval" (95%, over clips), "agreement" and
        "corrected_agreement" (share of shuffled, of corrected clips with the answer of the ordered
        one), "clips", "labelled", "shuffles", "seed". What could not be measured (no labels,
        nothing corrected) is None.

    Raises:
        UserError: if there is no clip.
    """
    if not answers.videos:
        raise UserError("no clip to measure order reliance on; give at least one video")
    numbers = {name: number for number, name in enumerate(answers.class_names)}
    labels = torch.tensor([numbers.get(str(label), -1) for label in answers.labels])
    S = answers.outputs["order"].shape[1]
    predicted = {"ordered": answers.logits[:, 0].argmax(-1)[:, None].expand(-1, S)}
    for name in ("shuffled", "corrected"):
        if f"{name}_logits" in answers.outputs:
            predicted[name] = answers.outputs[f"{name}_logits"].argmax(-1)
    return reliance_numbers(labels, predicted, seed=answers.options["seed"])


def reliance_numbers(labels: Tensor, predicted: dict[str, Tensor], *, seed: int) -> dict[str, Any]:
    """Return the numbers of `measure_reliance` from labels (N,), -1 for none, and classes (N, S)
    per condition."""
    known = labels >= 0
    right = {
        name: (answer[known] == labels[known, None]).double() for name, answer in predicted.items()
    }
    result: dict[str, Any] = {}
    for name in ("ordered", "shuffled", "corrected"):
        measured = name in right and bool(known.any())
        result[f"{name}_accuracy"] = float(right[name].mean()) if measured else None

    result["order_reliance"], result["order_reliance_interval"] = None, None
    if bool(known.any()):
        # The shuffles of a clip are averaged first, for they are not independent.
        lost = (right["ordered"] - right["shuffled"]).mean(1)
        result["order_reliance"] = float(lost.mean())
        result["order_reliance_interval"] = list(difference_interval(lost))

    for key, name in (("agreement", "shuffled"), ("corrected_agreement", "corrected")):
        same = (predicted[name] == predicted["ordered"]).double() if name in predicted else None
        result[key] = float(same.mean()) if same is not None else None
    return {
        **result,
        "clips": len(labels),
        "labelled": int(known.sum()),
        "shuffles": predicted["shuffled"].shape[1],
        "seed": seed,
    }


def describe_reliance(result: dict[str, Any]) -> str:
    """Say a result of `measure_reliance` in one line."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    accuracy = ", ".join(
        f"{name} {share(result[f'{name}_accuracy'])}"
        for name in ("ordered", "shuffled", "corrected")
    )
    interval = result["order_reliance_interval"]
    reliance = (
        "order reliance -"
        if interval is None
        else (
            f"order reliance {result['order_reliance']:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"
        )
    )
    return (
        f"accuracy {accuracy}; {reliance}; same answer after shuffling "
        f"{share(result['agreement'])}, after correction {share(result['corrected_agreement'])} "
        f"({result['clips']} videos, {result['labelled']} with a label of the model, x "
        f"{result['shuffles']} shuffles)"
    )
