"""Metrics as the official evaluators compute them, one file per protocol."""

from __future__ import annotations

from marey.metrics import accuracy, ava, calibration, comparison, order, robustness, youtube8m

__all__ = ["accuracy", "ava", "calibration", "comparison", "order", "robustness", "youtube8m"]
