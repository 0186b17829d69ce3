"""Recognise human actions in video with transformers, and know how far to trust the answer.

Importing `marey` imports nothing heavy: every public name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "Predictor": "marey.inference.predictor",
    "load_model": "marey.checkpoints.load",
    "create_model": "marey.models",
    "list_models": "marey.models",
    "list_recipes": "marey.recipes",
    "list_corruptions": "marey.corruptions",
    "list_attacks": "marey.attacks",
    "VideoClassifier": "marey.teaching.classifier",
    "teach": "marey.teaching.teach",
    "crossval": "marey.teaching.teach",
    "corrupt": "marey.corruptions",
    "corruption": "marey.corruptions",
    "metrics": "marey.metrics",
}
"""Public name -> the module that defines it."""

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'marey' has no attribute '{name}'")
    module = importlib.import_module(_HOME_OF[name])
    return module if _HOME_OF[name] == f"marey.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
