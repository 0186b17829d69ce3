"""Figs. 1, 4, 6 and 8 and Table 2 of `marey reproduce gat`, computed from the models of Table 1.

What a figure shows lies in the cells' JSON files; `gat_pictures` draws it from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marey.layers.gated_attention import global_profile, local_profile
from marey.metrics.youtube8m import best_and_worst_classes
from marey.papers.gat_study import Study, plain_objective
from marey.recipes.gat import PAPER_SHARE
from marey.training.task import Batch
from marey.training.terms.adversarial import perturb

BASELINE, GATED, GAT = "SA-CE", "GMSA-CE", "GAT-AdvFr"
"""The baseline, the model with local attention, and the whole method."""
SHOWN = 2
"""Videos of a figure of profiles (the paper: Figs. 1a and 4)."""


# ---- Figs. 1a and 4 ------------------------------------------------------------------------------


def profiles(study: Study, seed: int) -> dict[str, Any]:
    """Compare the global profile of the baseline with the local profile of the gated model.

    Returns:
        Over all test videos, for either profile, how uneven it is: "peak", the largest share of a
        second times the number of seconds (1 is uniform). "videos": the curves of the first
        `SHOWN` test videos that the baseline gets wrong and the gated model right, or of the first
        ones where there are too few.
    """
    baseline, gated = study.model(BASELINE, seed), study.model(GATED, seed)
    peaks: dict[str, list[Tensor]] = {}
    wanted: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for batch in study.batches("test"):
        with torch.no_grad():
            both = [
                model(batch["features"], batch["mask"], return_attention=True)
                for model in (baseline, gated)
            ]
        mask = batch["mask"]
        layers = [picture_layer(outputs) for outputs in both]
        windows = next(iter(layers[1]["local_maps"].values()))
        local = local_profile(windows, mask.shape[1], mask)
        curves = {
            "baseline_global": global_profile(layers[0]["global_map"], mask),
            "gated_global": global_profile(layers[1]["global_map"], mask),
            "gated_local": shares_of_video(local, mask, windows.shape[-1]),
        }
        seconds = mask.sum(1)
        for name, profile in curves.items():
            peaks.setdefault(name, []).append(profile.amax(1) * seconds)

        right = [answers_right(outputs["logits"], batch["targets"]) for outputs in both]
        for row in range(len(mask)):
            found = wanted if bool(right[1][row] & ~right[0][row]) else others
            if len(found) < SHOWN:
                found.append(_video(study, batch, row, curves, both))
    means = {f"peak_{name}": float(torch.cat(found).mean()) for name, found in peaks.items()}
    return {**means, "videos": (wanted + others)[:SHOWN]}


def shares_of_video(local: Tensor, mask: Tensor, window: int) -> Tensor:
    """Turn a local profile, whose windows each have the sum 1, into shares of the whole video.

    A window counts by its real seconds, so that uniform attention is 1 / T everywhere, also in a
    last window that is shorter.

    Args:
        local: (B, T), of `local_profile`.
        mask: bool (B, T), real seconds.
        window: seconds.

    Returns:
        (B, T), each row sums to 1.
    """
    B, T = mask.shape
    padded = torch.nn.functional.pad(mask, (0, -T % window)).view(B, -1, window)
    seconds = padded.sum(2).repeat_interleave(window, dim=1)[:, :T]  # real ones of the own window
    return local * seconds / mask.sum(1, keepdim=True)


def picture_layer(outputs: Mapping[str, Any]) -> Any:
    """Return the maps of the last layer of the visual encoder (the first one, without pictures)."""
    attention = outputs["attention"]
    name = "rgb" if "rgb" in attention else next(iter(attention))
    return attention[name][-1]


def answers_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Return for every video, bool (B,), whether its n best classes are its n labels."""
    right = [
        set(scores.topk(int(labels.sum())).indices.tolist())
        == set(labels.nonzero().flatten().tolist())
        for scores, labels in zip(logits, targets, strict=True)
    ]
    return torch.tensor(right)


def _video(
    study: Study, batch: Batch, row: int, curves: Mapping[str, Tensor], both: list[Any]
) -> dict[str, Any]:
    """Return one video of Figs. 1a and 4: its labels, what both models say, and its curves."""
    names = study.feature_set().space.class_names
    seconds = int(batch["mask"][row].sum())
    return {
        "id": batch["ids"][row],
        "truth": [names[k] for k in batch["targets"][row].nonzero().flatten()],
        BASELINE: said(both[0]["logits"][row], names),
        GATED: said(both[1]["logits"][row], names),
        "profiles": {name: _rounded(curve[row, :seconds]) for name, curve in curves.items()},
    }


def said(logits: Tensor, names: Any, threshold: float = 0.2, top: int = 3) -> dict[str, float]:
    """Return the best classes above a probability (Table 2: at most 3, above 0.2)."""
    best = logits.sigmoid().topk(min(top, len(logits)))
    return {
        names[int(k)]: round(float(p), 2)
        for p, k in zip(best.values, best.indices, strict=True)
        if p > threshold
    }


def _rounded(values: Tensor) -> Any:
    """Return nested lists with four digits, as figures need them."""
    return np.round(values.double().cpu().numpy(), 4).tolist()


# ---- Figs. 1b and 6 ------------------------------------------------------------------------------


def attention_under_attack(study: Study, seed: int) -> dict[str, Any]:
    """Compare attention for test videos and for their adversarial counterparts.

    Returns:
        For each model the largest share of attention of a second and how far clean and attacked
        profile overlap (1 is equal), means over the test videos; "maps" (Fig. 1b) and "profiles"
        (Fig. 6) of the first test video, in the cell of seed 0.
    """
    found: dict[str, Any] = {}
    maps: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name in (GATED, "GMSA-Adv", GAT):
        model = study.model(name, seed)
        largest, overlap = [], []
        for number, batch in enumerate(study.batches("test")):
            moved = perturb(plain_objective(), model, batch, PAPER_SHARE, relative=True)
            with torch.no_grad():
                layers = [
                    picture_layer(model(one["features"], one["mask"], return_attention=True))
                    for one in (batch, moved)
                ]
            both = [global_profile(layer["global_map"], batch["mask"]) for layer in layers]
            largest.append(both[0].amax(1))
            overlap.append(torch.minimum(*both).sum(1))
            if number == 0 and seed == 0:
                seconds = int(batch["mask"][0].sum())
                curves[name] = [_rounded(profile[0, :seconds]) for profile in both]
                maps[name] = [
                    _rounded(layer["global_map"][0].mean(0)[:seconds, :seconds]) for layer in layers
                ]
        found[f"{name} largest"] = float(torch.cat(largest).mean())
        found[f"{name} overlap"] = float(torch.cat(overlap).mean())
    shown = {name: maps[name] for name in (GATED, GAT) if name in maps}
    return {**found, "profiles": curves, "maps": shown}


# ---- Fig. 8 and Table 2 --------------------------------------------------------------------------


def class_gains(study: Study, seed: int) -> dict[str, Any]:
    """Compare average precision class by class, GAT against the baseline (Fig. 8)."""
    ours, baseline = (
        study.answers(name, seed, "test").per_class_average_precision() for name in (GAT, BASELINE)
    )
    names = study.feature_set().space.class_names
    return {
        "classes worse": sum(ours[k] < ap for k, ap in baseline.items()),
        "classes": len(ours),
        **best_and_worst_classes(ours, baseline, names),
    }


def listing(study: Study, seed: int, count: int = 4) -> dict[str, Any]:
    """List what baseline and GAT say beside the truth (Table 2).

    Returns:
        How many test videos have all their labels found by both models, by one of them or by none;
        "rows": the first `count` test videos, unselected, and the first `count` that only one of
        the models gets right (the paper shows four that only GAT does).
    """
    names = study.feature_set().space.class_names
    models = {name: study.model(name, seed) for name in (BASELINE, GAT)}
    counts = {"both right": 0, "only GAT right": 0, "only baseline right": 0, "neither": 0}
    first: list[dict[str, Any]] = []
    differing: list[dict[str, Any]] = []
    for batch in study.batches("test"):
        with torch.no_grad():
            logits = {
                name: model(batch["features"], batch["mask"])["logits"]
                for name, model in models.items()
            }
        right = {name: answers_right(values, batch["targets"]) for name, values in logits.items()}
        for row, name in enumerate(batch["ids"]):
            ours, theirs = bool(right[GAT][row]), bool(right[BASELINE][row])
            outcome = {
                (True, True): "both right",
                (True, False): "only GAT right",
                (False, True): "only baseline right",
                (False, False): "neither",
            }[ours, theirs]
            counts[outcome] += 1
            entry = {
                "id": name,
                "truth": [names[k] for k in batch["targets"][row].nonzero().flatten()],
                "outcome": outcome,
                **{model: said(values[row], names) for model, values in logits.items()},
            }
            if len(first) < count:
                first.append({**entry, "chosen": "first videos"})
            elif ours != theirs and len(differing) < count:
                differing.append({**entry, "chosen": "first that one model gets right"})
    return {**counts, "rows": first + differing}
