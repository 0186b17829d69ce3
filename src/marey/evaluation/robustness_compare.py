"""Two robustness reports side by side: B minus A on the videos that both measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marey.errors import UserError
from marey.files import read_json
from marey.metrics.intervals import difference_interval

SETTINGS = ("corruptions", "severities", "profile", "at", "suite", "attacks", "max_frames", "seed")
"""Settings without which two numbers are not of the same thing."""


def read_report(path: Path) -> dict[str, Any]:
    """Read a report.json of `marey robustness`.

    Raises:
        UserError: if it is none, or was written before reports kept their videos.
    """
    report = read_json(path)
    if not isinstance(report, dict) or "models" not in report or "settings" not in report:
        raise UserError(f"{path}: is no report.json of 'marey robustness'")
    if "names_of_videos" not in report:
        raise UserError(f"{path}: does not name its videos; run 'marey robustness' again")
    return report


def compare_reports(path_a: Path, path_b: Path) -> dict[str, Any]:
    """Compare every model of B with the model of A of the same name, or the one model of each.

    Returns:
        "videos" (shared), "differing_settings", and "models": for each pair the clean and the
        corrupted difference with their intervals, and the differences by category and threat model.

    Raises:
        UserError: if no video or no model is shared.
    """
    a, b = read_report(path_a), read_report(path_b)
    where_a = {name: i for i, name in enumerate(a["names_of_videos"])}
    where_b = {name: i for i, name in enumerate(b["names_of_videos"])}
    shared = [name for name in where_a if name in where_b]
    if not shared:
        raise UserError(f"{path_a} and {path_b} measured no video in common")
    rows_a = torch.tensor([where_a[name] for name in shared])
    rows_b = torch.tensor([where_b[name] for name in shared])
    groups = [a["group_of_video"][row] for row in rows_a.tolist()]

    pairs = [(name, name) for name in a["models"] if name in b["models"]]
    if not pairs and len(a["models"]) == len(b["models"]) == 1:
        pairs = [(next(iter(a["models"])), next(iter(b["models"])))]
    if not pairs:
        raise UserError(
            f"no model of {path_a} ({', '.join(a['models'])}) is in {path_b} "
            f"({', '.join(b['models'])}); compare reports of the same models, or of one model each"
        )
    models = []
    for name_a, name_b in pairs:
        model_a, model_b = a["models"][name_a], b["models"][name_b]
        found: dict[str, Any] = {"a": name_a, "b": name_b}
        for what, by_video in model_a["right_by_video"].items():
            if what in model_b["right_by_video"]:
                values_a = torch.tensor(by_video)[rows_a].double()
                values_b = torch.tensor(model_b["right_by_video"][what])[rows_b].double()
                found[what] = _difference(values_a, values_b, groups)
        found["categories"] = {
            category: numbers["mean_accuracy"] - model_a["categories"][category]["mean_accuracy"]
            for category, numbers in model_b["categories"].items()
            if category in model_a["categories"]
        }
        found["threats"] = _threats(model_a.get("threats"), model_b.get("threats"))
        models.append(found)
    return {
        "a": str(path_a),
        "b": str(path_b),
        "videos": len(shared),
        "only_a": len(where_a) - len(shared),
        "only_b": len(where_b) - len(shared),
        "differing_settings": {
            key: [a["settings"].get(key), b["settings"].get(key)]
            for key in SETTINGS
            if a["settings"].get(key) != b["settings"].get(key)
        },
        "models": models,
    }


def _difference(values_a: Tensor, values_b: Tensor, groups: list[Any]) -> dict[str, float]:
    low, high = difference_interval(values_b - values_a, None if None in groups else groups)
    return {
        "a": float(values_a.mean()),
        "b": float(values_b.mean()),
        "difference": float((values_b - values_a).mean()),
        "low": low,
        "high": high,
    }


def _threats(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any]:
    if a is None or b is None:
        return {}
    return {
        name: {
            "a": a["models"][name]["robust_accuracy"],
            "b": found["robust_accuracy"],
            "reliable": a["reliable"] and b["reliable"],
        }
        for name, found in b["models"].items()
        if name in a["models"]
    }


def comparison_text(result: dict[str, Any]) -> str:
    """Return the comparison as lines to print."""
    lines = [f"{result['videos']} shared videos"]
    if result["only_a"] or result["only_b"]:
        lines[0] += f" ({result['only_a']} only in A, {result['only_b']} only in B)"
    for key, (a, b) in result["differing_settings"].items():
        lines.append(f"NOT ALIKE: {key} is {a} in A and {b} in B")
    for model in result["models"]:
        same = model["a"] == model["b"]
        lines.append(model["a"] if same else f"A {model['a']}, B {model['b']}")
        for what in ("clean", "corrupted"):
            if what in model:
                found = model[what]
                lines.append(
                    f"  {what}: A {found['a']:.1%}   B {found['b']:.1%}   B - A = "
                    f"{100 * found['difference']:+.1f} points [{100 * found['low']:+.1f}, "
                    f"{100 * found['high']:+.1f}]"
                )
        own = result["only_a"] or result["only_b"]
        for category, value in model["categories"].items():
            where = " (each on all videos of its own report)" if own else ""
            lines.append(f"  {category}: B - A = {100 * value:+.1f} points{where}")
        for name, found in model["threats"].items():
            doubt = "" if found["reliable"] else "   UNRELIABLE: gradients are masked"
            lines.append(f"  {name}: A {found['a']:.1%}   B {found['b']:.1%}{doubt}")
    return "\n".join(lines)
