"""Metrics as the official evaluators compute them, one file per protocol, imported when first used."""

from __future__ import annotations

import importlib
from types import ModuleType

_MODULES = ("accuracy", "ava", "calibration", "order", "robustness", "youtube8m")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module 'marey.metrics' has no attribute '{name}' (it has: {', '.join(_MODULES)})")
    return importlib.import_module(f"marey.metrics.{name}")
