"""Configurations of older versions, read from run folders and checkpoints under today's names."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from marey.checkpoints.load import RENAMED

GONE: dict[str, str | None] = {
    "optim.nesterov": None,
    "optim.betas": None,
    "optim.final": None,
    "optim.head_lr_scale": None,
    "train.head_warm_start": "train.linear_probe",
}
"""Setting of an older version -> its name today, or None where there is none."""


def migrate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in JSON types with today's setting names.

    One warning says what was renamed or left out.
    """
    migrated: dict[str, Any] = json.loads(json.dumps(values))
    changes = migrate_objective(migrated)
    for old, new in GONE.items():
        section, _, name = old.rpartition(".")
        values_there = _section(migrated, section)
        if values_there is None or name not in values_there:
            continue
        value = values_there.pop(name)
        if new is None:
            changes.append(f"{old} is left out")
        else:
            section, _, name = new.rpartition(".")
            _section(migrated, section, make=True)[name] = value
            changes.append(f"{old} is now {new}")
    changes += migrate_start(migrated)
    if changes:
        warnings.warn(f"configuration of an older version: {', '.join(changes)}", stacklevel=3)
    return migrated


def migrate_start(values: dict[str, Any]) -> list[str]:
    """Give the bundled model that training on pixels starts from its name of today, in place."""
    source = (_section(values, "model") or {}).get("init_from")
    task = (_section(values, "objective") or {}).get("task")
    if source not in RENAMED or task == "poses":
        return []
    values["model"]["init_from"] = RENAMED[source]
    return [f"model.init_from={source} is now {RENAMED[source]}"]


def _section(values: dict[str, Any], path: str, *, make: bool = False) -> Any:
    """Return the dictionary at a dotted path; where it is absent, a new one (`make`) or None."""
    for name in path.split("."):
        if make and values.get(name) is None:
            values[name] = {}
        values = values.get(name)  # type: ignore[assignment]
        if not isinstance(values, dict):
            return None
    return values


# ---- objectives around objectives: `objective.kind` and `arguments` ------------------------------

CLASSIFICATION = (
    "label_smoothing",
    "class_weights",
    "mixup_alpha",
    "cutmix_alpha",
    "mix_probability",
)
"""Settings that stood in `objective` itself."""
ORDER = (
    "num_permutations",
    "rule",
    "permutation_file",
    "identity_first",
    "signs",
    "mask_diagonal",
    "backwards",
)
ATTENTION_WEIGHTS = {"frobenius": 0.001, "js": 0.01}
"""Weight of the attention term where none was given."""


def migrate_objective(values: dict[str, Any]) -> list[str]:
    """Turn the kind of an objective, and what it stood on, into terms with weights, in place.

    Returns:
        What was changed, as sentences for a notice; empty for a configuration of today.
    """
    objective, data = values.get("objective"), values.get("data")
    old_data = data.pop("arguments", None) if isinstance(data, dict) else None
    if not isinstance(objective, dict) or not {"kind", "arguments", *CLASSIFICATION} & set(
        objective
    ):
        if isinstance(data, dict) and old_data:
            _migrate_data(data, old_data, "classification")
            return ["data.arguments is divided among the settings of data"]
        return []

    kind = objective.pop("kind", "classification")
    arguments = objective.pop("arguments", None) or {}
    said = f"objective.kind={kind} is now a sum of terms (objective.weights)"
    if kind == "frozen_stem":
        kind = arguments.pop("inner", "classification")
        settings = {
            "variants": arguments.pop("variants", 2),
            "views": arguments.pop("views", 0),
            "folder": arguments.pop("cache", None),
        }
        values.setdefault("data", {})["feature_cache"] = settings
    classification = {name: objective.pop(name) for name in CLASSIFICATION if name in objective}
    if "over_classes" in arguments:
        classification["over_classes"] = arguments.pop("over_classes")

    weights = objective.setdefault("weights", {"class": 1.0})
    objective["task"] = kind if kind in ("features", "detection") else "clips"
    objective["classification"] = classification
    _migrate_adversarial(objective, arguments.pop("adversarial", None))
    base = arguments.pop("base", "classification") if kind == "label_embedding" else kind
    order_from = arguments.pop("order_from", 0.0)
    if kind == "label_embedding":
        objective["label"] = _label(arguments)
    if base == "order":
        objective["order"] = {name: arguments.pop(name) for name in ORDER if name in arguments}
        arguments.pop("permutation_seed", None)
        arguments.pop("guided_on_ordered", None)
        if not {"order", "guided"} & set(weights):
            weights["order"] = 0.0  # the head was built, and the order measured
        if order_from:
            objective["start"] = {
                name: order_from for name in ("order", "guided") if name in weights
            }
    if kind == "distillation":
        objective["teacher"] = {
            "checkpoint": arguments.pop("teacher", None),
            "temperature": arguments.pop("temperature", 2.0),
        }
    if kind == "detection":
        objective["detection"] = {"boxes": arguments.pop("boxes", "own")}
        if arguments.pop("only", None) == "proposals":
            objective["weights"] = {
                name: weights[name] for name in ("rpn_objectness", "rpn_box") if name in weights
            }
    if arguments:
        objective["arguments"] = arguments  # unknown even then: the check names it
    if old_data:
        _migrate_data(values["data"], old_data, kind)
    return [said]


def _label(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the term "label", taken out of the arguments."""
    shares = arguments.pop("stage_shares", [0.5, 0.25, 0.25])
    label = {"stage_shares": shares if arguments.pop("training", "joint") == "staged" else None}
    for old, new in (("label_source", "source"), ("label_loss", "loss")):
        if old in arguments:
            label[new] = arguments.pop(old)
    return label


def _migrate_adversarial(objective: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Turn `objective.arguments.adversarial` into the terms "adversarial" and "attention"."""
    if old is None:
        return
    distance, beta = old.get("attention"), old.get("beta")
    objective["weights"]["adversarial"] = old.get("alpha", 1.0)
    if distance is not None:
        objective["weights"]["attention"] = ATTENTION_WEIGHTS[distance] if beta is None else beta
    objective["adversarial"] = {name: old[name] for name in ("eps", "norm") if name in old}
    objective["adversarial"] |= {"distance": distance} if distance is not None else {}


def _migrate_data(data: dict[str, Any], old: dict[str, Any], kind: str) -> None:
    """Divide `data.arguments` among today's settings."""
    if kind == "features":
        data["features"] = {
            ("widths" if name == "features" else name): value for name, value in old.items()
        }
    elif kind == "detection":
        variants, folder = old.pop("variants", 0), old.pop("cache", None)
        if variants:
            data["feature_cache"] = {"variants": variants, "folder": folder}
        data["detection"] = old
    else:
        data["unseen_classes"] = old.pop("unseen_classes", [])
        if old:
            data["arguments"] = old
