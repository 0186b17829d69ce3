"""Order reliance: how much any model's answer depends on the order of the frames, and whether correction repairs it.

The two questions of Truong et al., "DirecFormer", CVPR 2022, section 1: is a shuffled clip still given the same label
(then the model never looked at the order), and can the frames be put back so that the answer returns?
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from marey.checkpoints.folder import Checkpoint
from marey.datasets import open_dataset
from marey.datasets.clips import read_frames
from marey.datasets.index import DatasetIndex, subset
from marey.errors import UserError, VideoError
from marey.inference.order import preprocess_of
from marey.metrics.order import chance_order_accuracy, mean_with_interval, order_accuracy
from marey.order.correction import NoTemporalAttentionError, check_distinct_frames, permute_frames, recover_order
from marey.order.permutations import random_permutations
from marey.transforms.preprocess import Preprocess


def order_reliance(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, corrector: nn.Module | None = None,
                   corrector_clips: Iterable[Tensor] | None = None, shuffles: int = 4, seed: int = 0) -> dict[str, Any]:
    """Measure a model on ordered, shuffled, and shuffled-then-corrected clips.

    Args:
        model: any model with `model(clip)["logits"]` in eval mode: ours, `hf:` or `torchvision:`.
        batches: pairs of clips (B, T, C, H, W), ordered and normalised for the model, and labels (B,), -1 where there
            is none; such clips count for the agreement only.
        corrector: the model that puts shuffled frames back; None takes `model` itself where it gives temporal
            attention, else nothing is corrected.
        corrector_clips: the same clips, same frames, normalised for the corrector, where it takes another size.
        shuffles: permutations per clip, drawn uniformly from all T!.
        seed: of the permutations, the same for every model.

    Returns:
        "ordered_accuracy", "shuffled_accuracy", "corrected_accuracy", "order_reliance" (ordered - shuffled) with
        "order_reliance_interval" (95%, over clips), "agreement" and "corrected_agreement" (share of shuffled, of
        corrected clips with the answer of the ordered one), "clips", "labelled", "shuffles", "seed". What could not be
        measured (no labels, no corrector) is None.

    Raises:
        UserError: if there is no clip.
    """
    generator = torch.Generator().manual_seed(seed)
    paired = iter(corrector_clips) if corrector_clips is not None else None
    given: list[Tensor] = []
    found: dict[str, list[Tensor]] = {"ordered": [], "shuffled": [], "corrected": []}
    for clips, labels in batches:
        B, T = clips.shape[:2]
        orders = random_permutations(B * shuffles, T, generator).to(clips.device)
        shuffled = permute_frames(clips.repeat_interleave(shuffles, dim=0), orders)
        seen = next(paired).to(clips.device) if paired is not None else clips
        path = _recovered(corrector or model, permute_frames(seen.repeat_interleave(shuffles, dim=0), orders),
                          required=corrector is not None)
        given.append(labels.cpu())
        found["ordered"].append(answers(model, clips).cpu()[:, None].expand(-1, shuffles))
        found["shuffled"].append(answers(model, shuffled).cpu().view(B, shuffles))
        if path is not None:
            found["corrected"].append(answers(model, permute_frames(shuffled, path)).cpu().view(B, shuffles))
    if not given:
        raise UserError("no clip to measure order reliance on; give at least one video")
    return summarise(torch.cat(given), {name: torch.cat(parts) for name, parts in found.items() if parts},
                     shuffles=shuffles, seed=seed)


def summarise(labels: Tensor, predicted: dict[str, Tensor], *, shuffles: int, seed: int) -> dict[str, Any]:
    """Turn labels (N,), -1 for none, and answers (N, shuffles) per condition into accuracies and agreements."""
    known = labels >= 0
    right = {name: (answer[known] == labels[known, None]).double() for name, answer in predicted.items()}
    result: dict[str, Any] = {}
    for name in ("ordered", "shuffled", "corrected"):
        measured = name in right and bool(known.any())
        result[f"{name}_accuracy"] = float(right[name].mean()) if measured else None
    result["order_reliance"], result["order_reliance_interval"] = None, None
    if bool(known.any()):
        lost, interval = mean_with_interval((right["ordered"] - right["shuffled"] + 1) / 2)   # into [0, 1] and back
        result["order_reliance"], result["order_reliance_interval"] = 2 * lost - 1, [2 * end - 1 for end in interval]
    for key, name in (("agreement", "shuffled"), ("corrected_agreement", "corrected")):
        same = (predicted[name] == predicted["ordered"]).double() if name in predicted else None
        result[key] = float(same.mean()) if same is not None else None
    return {**result, "clips": len(labels), "labelled": int(known.sum()), "shuffles": shuffles, "seed": seed}


@torch.inference_mode()
def answers(model: nn.Module, clips: Tensor, *, batch_size: int = 16) -> Tensor:
    """Return the most probable class of every clip, int64 (B,)."""
    return torch.cat([model(part)["logits"].argmax(dim=1) for part in clips.split(batch_size)])


def _recovered(model: nn.Module, shuffled: Tensor, *, required: bool) -> Tensor | None:
    """Return the recovered paths, or None where the model has no temporal attention and none is required."""
    try:
        return recover_order(model, shuffled).path
    except NoTemporalAttentionError:
        if required:
            raise
        return None


def describe_reliance(result: dict[str, Any]) -> str:
    """Say a result of `order_reliance` in one line."""
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    accuracy = ", ".join(f"{name} {share(result[f'{name}_accuracy'])}" for name in ("ordered", "shuffled", "corrected"))
    interval = result["order_reliance_interval"]
    reliance = "order reliance -" if interval is None else (
        f"order reliance {result['order_reliance']:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]")
    return (f"accuracy {accuracy}; {reliance}; same answer after shuffling {share(result['agreement'])}, after "
            f"correction {share(result['corrected_agreement'])} ({result['clips']} videos, {result['labelled']} with a "
            f"label of the model, x {result['shuffles']} shuffles)")

FEWEST_CLIPS = 50
"""Number of clips from which a mean OrderAcc is worth quoting (with 4 shuffles each: about 2 percentage points)."""



def evaluate_order_accuracy(model: nn.Module, batches: Iterable[Tensor], *, shuffles: int = 4,
                            seed: int = 0, method: str = "path") -> dict[str, Any]:
    """Measure OrderAcc over clips, each shuffled several times.

    The permutations are drawn uniformly from all T!, never from a training set, with one seed for all models ("we set
    the same random seed", section 4.3): clip i is shuffled alike whatever the model and the batch size.

    Args:
        model: see `recover_order`.
        batches: float clips (B, T, C, H, W), ordered; clips with repeated frames are left out and counted.
        shuffles: permutations per clip.
        seed: of the permutations.
        method: see `recover_order`.

    Returns:
        "order_accuracy" (mean, 0..1), "interval" (95%, over clips), "chance", "clips", "shuffles", "left_out", "seed".

    Raises:
        UserError: if no clip is left, or as `recover_order`.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    left_out, T = 0, 0
    for clips in batches:
        T = clips.shape[1]
        orders = random_permutations(len(clips) * shuffles, T, generator).view(len(clips), shuffles, T)
        distinct = torch.tensor([_is_distinct(clip) for clip in clips], dtype=torch.bool)
        left_out += int((~distinct).sum())
        if not bool(distinct.any()):
            continue
        clips, orders = clips[distinct.to(clips.device)], orders[distinct].to(clips.device)
        shuffled = permute_frames(clips.repeat_interleave(shuffles, dim=0), orders.flatten(0, 1))
        path = recover_order(model, shuffled, method=method).path
        found.append(order_accuracy(path.cpu(), orders.flatten(0, 1).cpu()).view(-1, shuffles))
    if not found:
        raise UserError(f"no clip to measure the order on ({left_out} left out for repeated frames)")
    mean, interval = mean_with_interval(torch.cat(found))
    return {"order_accuracy": mean, "interval": list(interval), "chance": chance_order_accuracy(T),
            "clips": sum(len(part) for part in found), "shuffles": shuffles, "left_out": left_out, "seed": seed,
            "method": method}



def _is_distinct(clip: Tensor) -> bool:
    """Tell whether no two frames of a clip are equal."""
    try:
        check_distinct_frames(clip)
    except UserError:
        return False
    return True



def describe_order_accuracy(result: dict[str, Any]) -> str:
    """Say a result of `evaluate_order_accuracy` in one line, always beside its chance level."""
    low, high = result["interval"]
    few = "" if result["clips"] >= FEWEST_CLIPS else f", fewer than {FEWEST_CLIPS} clips: a rough number"
    return (f"OrderAcc {result['order_accuracy']:.1%} [{low:.1%}, {high:.1%}] against {result['chance']:.2%} by chance "
            f"({result['clips']} clips x {result['shuffles']} shuffles{few})")



def order_accuracy_on(checkpoint: Checkpoint, index: DatasetIndex, *, shuffles: int = 4, seed: int = 0,
                      batch_size: int = 8, device: str = "cpu", backwards: Collection[str] = (),
                      method: str = "path") -> dict[str, Any]:
    """Measure OrderAcc on the videos of a data set: what `marey evaluate` says of an order model.

    Args:
        backwards: classes whose clips are recordings played backwards; they are turned round first, as in training
            (see `OrderArguments.backwards`).
        method: see `recover_order`.

    Returns:
        As `evaluate_order_accuracy`, and "unreadable": messages of videos that could not be read.

    Raises:
        UserError: as `evaluate_order_accuracy`.
    """
    unreadable: list[str] = []
    preprocess = preprocess_of(checkpoint)
    model = checkpoint.model.to(device).eval()
    batches = (centre_clips(preprocess, [clip.flip(0) if label in backwards else clip
                                         for clip, label in zip(frames, labels, strict=True)]).to(device)
               for frames, labels in frame_batches(index, preprocess, batch_size, unreadable))
    found = evaluate_order_accuracy(model, batches, shuffles=shuffles, seed=seed, method=method)
    return {**found, "unreadable": unreadable}



def reliance_on(checkpoint: Checkpoint, data: str, *, dataset: str | None = None, split: str | None = None,
                corrector: Checkpoint | None = None, shuffles: int = 4, seed: int = 0, limit: int | None = None,
                batch_size: int = 4, device: str = "cpu") -> dict[str, Any]:
    """Measure the order reliance of any model on the videos of a data set.

    Videos whose label the model does not know count for the agreement only. The corrector sees the same frames as the
    model, prepared its own way.

    Args:
        checkpoint: any model, also `hf:` and `torchvision:`.
        data, dataset: see `marey.datasets.open_dataset`.
        split: only these videos; None takes all.
        corrector: see `order_reliance`.
        limit: measure on at most this many videos, evenly spaced over the data set.

    Returns:
        As `order_reliance`, and "unreadable".

    Raises:
        UserError: if there is no video, or the corrector takes another number of frames.
    """
    preprocess = preprocess_of(checkpoint)
    index = open_dataset(data, dataset=dataset)
    index = index.split(split) if split is not None else index
    if limit is not None and limit < len(index):
        index = subset(index, [int(place * len(index) / limit) for place in range(limit)])
    if corrector is not None:
        T, U = preprocess.sampling.num_frames, preprocess_of(corrector).sampling.num_frames
        if T != U:
            raise UserError(f"the model takes {T} frames and the corrector {U}; name a corrector of {T} frames")
        corrector.model.to(device).eval()
    numbers = {name: number for number, name in enumerate(checkpoint.class_names)}
    unreadable: list[str] = []
    pending: list[Tensor] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for frames, labels in frame_batches(index, preprocess, batch_size, unreadable):
            if corrector is not None:
                pending.append(centre_clips(preprocess_of(corrector), frames))
            wanted = torch.tensor([numbers.get(label or "", -1) for label in labels])
            yield centre_clips(preprocess, frames).to(device), wanted

    found = order_reliance(checkpoint.model.to(device).eval(), batches(), shuffles=shuffles, seed=seed,
                           corrector=corrector.model if corrector is not None else None,
                           corrector_clips=iter(lambda: pending.pop(0), None) if corrector is not None else None)
    return {**found, "unreadable": unreadable}



def centre_clips(preprocess: Preprocess, frames: list[Tensor]) -> Tensor:
    """Prepare sampled frames as the centre crop of evaluation: uint8 (T, C, H, W) each to float (B, T, C, S, S)."""
    centre = replace(preprocess, crops=1) if preprocess.crops != 1 else preprocess
    return torch.cat([centre.clip(clip)[:1] for clip in frames])



def frame_batches(index: DatasetIndex, preprocess: Preprocess, batch_size: int,
                  unreadable: list[str]) -> Iterator[tuple[list[Tensor], list[str | None]]]:
    """Yield the sampled frames and labels of the readable videos; messages of the others go to `unreadable`."""
    frames: list[Tensor] = []
    labels: list[str | None] = []
    for sample in index.samples:
        try:
            frames.append(read_frames(index, sample, preprocess))
        except VideoError as error:
            unreadable.append(str(error))
            continue
        labels.append(sample.label)
        if len(frames) == batch_size:
            yield frames, labels
            frames, labels = [], []
    if frames:
        yield frames, labels
