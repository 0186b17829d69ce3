"""The numbers of the robustness report, computed from the answers of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from marey.attacks.masking import alarms_of, reliability
from marey.corruptions import corruption
from marey.datasets.index import DatasetIndex
from marey.datasets.seen import seen_in_training
from marey.errors import UserError
from marey.evaluation.order import reliance_numbers
from marey.evaluation.robustness import CLEAN, AnyCandidate, BenchmarkConfig, video_name
from marey.metrics import robustness as metrics
from marey.metrics.calibration import calibration_error, calibration_noise_floor
from marey.metrics.comparison import compare, sign_flip_p_value
from marey.metrics.intervals import difference_interval, proportion_interval, ratio_interval

Entry = dict[str, Any]


def summarise(
    entries: Sequence[Entry],
    names: Sequence[str],
    class_names: Sequence[str],
    config: BenchmarkConfig,
    reference: int = 0,
    seen: Sequence[frozenset[str]] = (),
) -> dict[str, Any]:
    """Compute every number of the report.

    Args:
        entries: what `marey.evaluation.robustness.run` yields.
        names: the models, in the order of the run.
        class_names: classes of the data set.
        config: of the run.
        reference: which model is the reference of CE and mCE.
        seen: for each model, the videos it was trained on (`seen_videos`); empty: nobody knows.

    Returns:
        JSON types: "videos", "unreadable", "models": {name: numbers}, "pairs", "settings".

    Raises:
        UserError: if no video could be read.
    """
    good = [entry for entry in entries if "error" not in entry]
    if not good:
        raise UserError(
            "no video could be read, so there is nothing to report; see the errors above"
        )
    groups = [entry["group"] for entry in good]
    grouped = groups if all(group is not None for group in groups) else None
    tables = [_accuracies(good, i, config) for i in range(len(names))]
    models = {
        name: _model(good, i, tables, grouped, config, reference) for i, name in enumerate(names)
    }
    for name, known, number in zip(names, seen, range(len(names)), strict=False):
        if part := _seen_part(good, number, known):
            models[name]["seen_in_training"] = part
    labels = [class_names[entry["label"]] for entry in good]
    pairs = [
        _pair(good, names, a, b, labels, grouped, config)
        for a in range(len(names))
        for b in range(a + 1, len(names))
    ]
    return {
        "videos": len(good),
        "names_of_videos": [entry["video"] for entry in good],
        "group_of_video": groups,
        "groups": len(set(groups)) if grouped is not None else None,
        "classes": list(class_names),
        "majority_class_share": max(labels.count(name) for name in class_names) / len(labels),
        "unreadable": [
            {"video": entry["video"], "error": entry["error"]}
            for entry in entries
            if "error" in entry
        ],
        "reference": names[reference],
        "models": models,
        "pairs": pairs,
    }


def seen_videos(index: DatasetIndex, candidates: Sequence[AnyCandidate]) -> list[frozenset[str]]:
    """Return, for each model, the names of the videos it was trained on, as its checkpoint
    knows."""
    found = [seen_in_training(index, candidate.tensors) for candidate in candidates]
    return [
        frozenset()
        if seen is None
        else frozenset(video_name(index, position) for position in seen.positions)
        for seen in found
    ]


def _seen_part(
    entries: Sequence[Entry], model: int, known: frozenset[str]
) -> dict[str, Any] | None:
    """Return how many of the videos a model was trained on, and its accuracy on the others."""
    others = [entry for entry in entries if entry["video"] not in known]
    if len(others) == len(entries):
        return None
    part: dict[str, Any] = {"videos": len(entries) - len(others), "others": len(others)}
    if others:
        groups = [entry["group"] for entry in others]
        right = _right(others, model, CLEAN)
        part["clean_accuracy"] = float(right.mean())
        part["clean_interval"] = proportion_interval(right, None if None in groups else groups)
    return part


def _column(entries: Sequence[Entry], model: int, tag: str) -> tuple[Tensor, Tensor]:
    """Return first answers, int (N,), and their probabilities, (N,)."""
    pairs = [entry["models"][model]["answers"][tag] for entry in entries]
    answers, probabilities = zip(*pairs, strict=True)
    return torch.tensor(answers).long(), torch.tensor(probabilities).double()


def _labels(entries: Sequence[Entry]) -> Tensor:
    return torch.tensor([entry["label"] for entry in entries])


def _right(entries: Sequence[Entry], model: int, tag: str) -> Tensor:
    """Return 1 where the first answer is the label, else 0, float64 (N,)."""
    return (_column(entries, model, tag)[0] == _labels(entries)).double()


def _accuracies(
    entries: Sequence[Entry], model: int, config: BenchmarkConfig
) -> dict[str, dict[int, float]]:
    return {
        kind: {
            severity: float(_right(entries, model, f"{kind}/{severity}").mean())
            for severity in config.severities
        }
        for kind in config.corruptions
    }


def _corrupted_share(entries: Sequence[Entry], model: int, config: BenchmarkConfig) -> Tensor:
    """Return for each video the share of changes under which the answer is right, severities first,
    (N,)."""
    rows = []
    for kind in config.corruptions:
        right = [_right(entries, model, f"{kind}/{severity}") for severity in config.severities]
        rows.append(torch.stack(right).mean(0))
    return torch.stack(rows).mean(0)


def _model(
    entries: Sequence[Entry],
    model: int,
    tables: Sequence[dict[str, dict[int, float]]],
    groups: Sequence[Any] | None,
    config: BenchmarkConfig,
    reference: int,
) -> dict[str, Any]:
    labels = _labels(entries)
    answers, confidence = _column(entries, model, CLEAN)
    right = _right(entries, model, CLEAN)
    clean = float(right.mean())
    reference_clean = float(_right(entries, reference, CLEAN).mean())
    table, other = tables[model], tables[reference]
    kinds = {
        kind: _kind(entries, model, kind, clean, table[kind], other[kind], reference_clean, config)
        for kind in config.corruptions
    }
    result: dict[str, Any] = {
        "clean_accuracy": clean,
        "clean_interval": proportion_interval(right, groups),
        "clean_calibration_error": calibration_error(confidence, right),
        "clean_calibration_floor": calibration_noise_floor(confidence),
        "kinds": kinds,
        "categories": {},
        "attacks": _attacks(entries, model, answers, labels),
        "threats": _threats(entries, model, groups),
        "right_by_video": {"clean": [int(value) for value in right.tolist()]},
        "order": _order(entries, model),
    }
    if kinds:
        category_of = {kind: numbers["category"] for kind, numbers in kinds.items()}
        for key in ("mean_accuracy", "gamma_a", "gamma_r"):
            values = {
                kind: numbers[key] for kind, numbers in kinds.items() if numbers[key] is not None
            }
            for category, mean in metrics.category_means(values, category_of).items():
                result["categories"].setdefault(category, {})[key] = mean
        share = _corrupted_share(entries, model, config)
        result["right_by_video"]["corrupted"] = [round(value, 5) for value in share.tolist()]
        result |= {
            "mpc": metrics.mean_performance_under_corruption(table),
            "mpc_interval": proportion_interval(share, groups),
            "rpc": metrics.relative_performance_under_corruption(clean, table),
            "gamma_a": metrics.absolute_robustness(clean, float(share.mean())),
            "gamma_r": metrics.relative_robustness(clean, float(share.mean())),
            "gamma_r_interval": ratio_interval(share, right, groups),
            "mce": metrics.mean_corruption_error(table, other),
            "corrupted_calibration_error": sum(k["calibration_error"] for k in kinds.values())
            / len(kinds),
        }
    return result


def _kind(
    entries: Sequence[Entry],
    model: int,
    kind: str,
    clean: float,
    accuracy: dict[int, float],
    reference: dict[int, float],
    reference_clean: float,
    config: BenchmarkConfig,
) -> dict[str, Any]:
    labels = _labels(entries)
    clean_answers, _ = _column(entries, model, CLEAN)
    columns = [_column(entries, model, f"{kind}/{severity}") for severity in config.severities]
    fooled = [metrics.fooling_rate(clean_answers, answers, labels) for answers, _ in columns]
    errors = [calibration_error(confidence, answers == labels) for answers, confidence in columns]
    mean = metrics.mean_over_severities(accuracy)
    change = corruption(kind, profile=config.profile)
    return {
        "category": change.category,
        "profile": change.profile,
        "accuracy": {str(severity): value for severity, value in accuracy.items()},
        "mean_accuracy": mean,
        "gamma_a": metrics.absolute_robustness(clean, mean),
        "gamma_r": metrics.relative_robustness(clean, mean),
        "ce": metrics.corruption_error(accuracy, reference),
        "relative_ce": metrics.relative_corruption_error(
            accuracy, clean, reference, reference_clean
        ),
        "fooling_rate": None if fooled[0] is None else sum(f or 0.0 for f in fooled) / len(fooled),
        "calibration_error": sum(errors) / len(errors),
    }


def _attacks(
    entries: Sequence[Entry], model: int, clean_answers: Tensor, labels: Tensor
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, first in entries[0]["models"][model].get("attacks", {}).items():
        if first is None:
            found[name] = None
            continue
        rows = [entry["models"][model]["attacks"][name] for entry in entries]
        answers = torch.tensor([row["answer"] for row in rows])
        success = torch.tensor([row["success"] for row in rows]).double()
        found[name] = {
            "robust_accuracy": float(1 - success.mean()),
            "fooling_rate": metrics.fooling_rate(clean_answers, answers, labels),
            "mean_change_levels": sum(row["mean_change"] for row in rows) / len(rows),
            "max_change_levels": max(row["max_change"] for row in rows),
            "mean_queries": sum(row["queries"] for row in rows) / len(rows),
        }
    return found


def _threats(
    entries: Sequence[Entry], model: int, groups: Sequence[Any] | None
) -> dict[str, Any] | None:
    """Return what is left under each threat model, and whether masking makes it unreliable."""
    rows = [entry["models"][model].get("threats") for entry in entries]
    if not all(rows):
        return None
    found: dict[str, Any] = {}
    for name in rows[0]["models"]:
        results = [row["models"][name] for row in rows]
        robust = torch.tensor([result["robust"] for result in results]).double()
        winners = [result["won_by"] for result in results if result["won_by"]]
        found[name] = {
            "robust_accuracy": float(robust.mean()),
            "robust_interval": proportion_interval(robust, groups),
            "won_by": {attack: winners.count(attack) for attack in dict.fromkeys(winners)},
            "mean_queries": sum(result["queries"] for result in results) / len(results),
        }
    evidence = {
        key: torch.tensor([row["evidence"][key] for row in rows]) for key in rows[0]["evidence"]
    }
    return {"videos": len(rows), "models": found, **reliability(alarms_of(evidence))}


def _order(entries: Sequence[Entry], model: int) -> dict[str, Any] | None:
    """Return accuracies on ordered, shuffled and corrected clips."""
    rows = [entry["models"][model].get("order") for entry in entries]
    if not all(rows):
        return None
    shuffles = len(rows[0]["shuffled"])
    ordered = _column(entries, model, CLEAN)[0][:, None].expand(-1, shuffles)
    predicted = {"ordered": ordered, "shuffled": torch.tensor([row["shuffled"] for row in rows])}
    if all(row["corrected"] is not None for row in rows):
        predicted["corrected"] = torch.tensor([row["corrected"] for row in rows])
    return reliance_numbers(_labels(entries), predicted, seed=0)


def _pair(
    entries: Sequence[Entry],
    names: Sequence[str],
    a: int,
    b: int,
    labels: Sequence[str],
    groups: Sequence[Any] | None,
    config: BenchmarkConfig,
) -> dict[str, Any]:
    """Compare two models on the same videos, clean and corrupted."""
    clean = compare(
        _right(entries, a, CLEAN).bool(),
        _right(entries, b, CLEAN).bool(),
        labels,
        groups=groups,
    )
    clean.pop("per_class")
    result: dict[str, Any] = {"a": names[a], "b": names[b], "clean": clean}
    if config.corruptions:
        gains = _corrupted_share(entries, b, config) - _corrupted_share(entries, a, config)
        units = groups if groups is not None else list(range(len(gains)))
        numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
        places = torch.tensor([numbers[unit] for unit in units])
        per_unit = gains.new_zeros(len(numbers)).index_add_(0, places, gains)
        low, high = difference_interval(gains, groups)
        result["corrupted"] = {
            "difference": float(gains.mean()),
            "low": low,
            "high": high,
            "p": sign_flip_p_value(per_unit),
            "unit": "groups" if groups is not None else "videos",
        }
    return result


def describe_kinds(config: BenchmarkConfig) -> list[dict[str, Any]]:
    """Return where each kind's constants come from, where it applies and whether its draws change
    by frame."""
    described = []
    for kind in config.corruptions:
        change = corruption(kind, profile=config.profile)
        described.append(
            {
                "kind": kind,
                "category": change.category,
                "domain": change.domain,
                "coherence": change.coherence,
                "profile": change.profile,
                "monotone": change.kind.monotone,
            }
        )
    return described


def settings_of(config: BenchmarkConfig) -> dict[str, Any]:
    """Return the settings of a run as JSON types."""
    return asdict(config)


def choose_videos(index: DatasetIndex, split: str | None, limit: int | None) -> DatasetIndex:
    """Return the labelled videos to measure on: a split, and of it at most `limit`, taken in turn
    from every class."""
    if split is None:
        split = next((name for name in ("test", "val") if name in index.splits), None)
    chosen = index if split is None else index.split(split)
    samples = [sample for sample in chosen.samples if sample.label is not None]
    if not samples:
        raise UserError(f"{index.root}: no labelled videos to measure on; accuracy needs labels")
    if limit is not None and limit < len(samples):
        by_class: dict[str, list[Any]] = {}
        for sample in samples:
            by_class.setdefault(str(sample.label), []).append(sample)
        turns = [
            sample
            for row in zip_longest(*by_class.values())
            for sample in row
            if sample is not None
        ]
        kept = {id(sample) for sample in turns[:limit]}
        samples = [sample for sample in samples if id(sample) in kept]
    present = {sample.label for sample in samples}
    return replace(
        chosen,
        samples=tuple(samples),
        class_names=tuple(n for n in chosen.class_names if n in present),
    )
