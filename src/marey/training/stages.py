"""The stages of a run: which loss terms count in each, and which parameters are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marey.training.objective_config import ObjectiveConfig


def trains_backbone(name: str) -> bool:
    """Return whether SeViTAR's first stage trains a parameter: the backbone and the class MLP.

    The class MLP gives the backbone a loss. It reads a label embedding that is not trained yet. The
    paper does not say which loss its backbone was trained by.
    """
    return not name.startswith("semantic_mlp.")


def trains_semantic_mlp(name: str) -> bool:
    """Return whether SeViTAR's second stage trains a parameter: the semantic MLP."""
    return name.startswith("semantic_mlp.")


def trains_class_mlp(name: str) -> bool:
    """Return whether SeViTAR's third stage trains a parameter: the class MLP."""
    return name.startswith("class_mlp.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run, up to the start of the next one."""

    start: float
    """Share of the steps before it."""
    terms: frozenset[str]
    """Terms that count."""
    trains: Callable[[str], bool] | None = None
    """Whether the parameter of a name is trained; None: all that are not frozen."""


def build_stages(config: ObjectiveConfig) -> tuple[Stage, ...]:
    """Return the stages of `objective.start` and `objective.label.stage_shares`, in order.

    With `stage_shares`, the terms of the first stage are all but "label", that of the second is
    "label" alone, and that of the third "class" alone (SeViTAR, section 3.2: backbone, then
    semantic MLP, then classifier).
    """
    weighed = frozenset(name for name, weight in config.weights.items() if weight)
    parts = [Stage(start=0.0, terms=weighed)]
    if config.label.stage_shares is not None:
        first, second, _ = config.label.stage_shares
        parts = [
            Stage(start=0.0, terms=weighed - {"label"}, trains=trains_backbone),
            Stage(start=first, terms=weighed & {"label"}, trains=trains_semantic_mlp),
            Stage(start=first + second, terms=weighed & {"class"}, trains=trains_class_mlp),
        ]

    stages = []
    for start in sorted({part.start for part in parts} | {0.0, *config.start.values()}):
        part = stage_at(parts, start)
        begun = frozenset(name for name in part.terms if config.start.get(name, 0.0) <= start)
        stages.append(Stage(start=start, terms=begun, trains=part.trains))
    return tuple(stages)


def stage_at(stages: Sequence[Stage], step: float, total_steps: int = 1) -> Stage:
    """Return the stage a step belongs to, of stages in order of their start."""
    return [stage for stage in stages if stage.start * total_steps <= step][-1]
